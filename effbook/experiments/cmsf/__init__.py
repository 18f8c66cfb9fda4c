"""CMSF's experiments: importing this package registers its recipes and their profiles."""

from effbook.experiments.cmsf import flops, splits

__all__ = ["flops", "splits"]
