"""SimReg's experiments: importing this package registers its recipes and their profiles."""

from effbook.experiments.simreg import dimensions, evaluations, profiles, training

__all__ = ["dimensions", "evaluations", "profiles", "training"]
