"""CMSF's experiments: importing this package registers its recipes, their profiles and its benches."""

from effbook.experiments.cmsf import (
    bench,
    evaluations,
    flops,
    modal,
    modal_evaluation,
    overhead,
    profiles,
    splits,
    training,
)

__all__ = [
    "bench",
    "evaluations",
    "flops",
    "modal",
    "modal_evaluation",
    "overhead",
    "profiles",
    "splits",
    "training",
]
