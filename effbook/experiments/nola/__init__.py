"""NOLA's experiments: importing this package registers its recipes and their profiles."""

from effbook.experiments.nola import scratch_cnn, scratch_mlp, subspace, vision

__all__ = ["scratch_cnn", "scratch_mlp", "subspace", "vision"]
