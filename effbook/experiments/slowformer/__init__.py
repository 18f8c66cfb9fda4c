"""SlowFormer's experiments: importing this package registers its recipes and their profiles."""

from effbook.experiments.slowformer import bench, clock, defence, evaluations, pictures, profiles, suffix, training

__all__ = ["bench", "clock", "defence", "evaluations", "pictures", "profiles", "suffix", "training"]
