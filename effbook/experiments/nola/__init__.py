"""NOLA's experiments: importing this package registers its recipes and their profiles."""

from effbook.experiments.nola import count, scratch_cnn, scratch_mlp, subspace, vision

__all__ = ["count", "scratch_cnn", "scratch_mlp", "subspace", "vision"]
