"""SimReg's experiments: importing this package registers its recipes and their profiles."""

from effbook.experiments.simreg import detection, dimensions, evaluations, profiles, training

__all__ = ["detection", "dimensions", "evaluations", "profiles", "training"]
