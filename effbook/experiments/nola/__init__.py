"""NOLA's experiments: importing this package registers its recipes, their profiles and its benches."""

from effbook.experiments.nola import (
    bench,
    count,
    instruction,
    language,
    profiles,
    scratch_cnn,
    scratch_mlp,
    subspace,
    vision,
)

__all__ = ["bench", "count", "instruction", "language", "profiles", "scratch_cnn", "scratch_mlp", "subspace", "vision"]
