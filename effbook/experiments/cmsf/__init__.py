"""CMSF's experiments: importing this package registers its recipes and their profiles."""

from effbook.experiments.cmsf import evaluations, flops, modal, modal_evaluation, overhead, profiles, splits, training

__all__ = ["evaluations", "flops", "modal", "modal_evaluation", "overhead", "profiles", "splits", "training"]
