"""SimReg's experiments: importing this package registers its recipes and their profiles."""

from effbook.experiments.simreg import bench, detection, dimensions, evaluations, profiles, training

__all__ = ["bench", "detection", "dimensions", "evaluations", "profiles", "training"]
