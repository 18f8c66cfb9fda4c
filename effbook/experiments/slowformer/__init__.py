"""SlowFormer's experiments: importing this package registers its recipes and their profiles."""

from effbook.experiments.slowformer import clock, defence, evaluations, pictures, profiles, suffix, training

__all__ = ["clock", "defence", "evaluations", "pictures", "profiles", "suffix", "training"]
