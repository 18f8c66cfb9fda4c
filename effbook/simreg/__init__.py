"""SimReg: distilling self-supervised teachers by plain regression (sections 2.2 and A.2).

    from effbook.simreg import distill
    student, history, heads = distill(teacher, student, images)

For more say, put the parts together: `Student`, `Teachers`, `DistillViews`, `make_method`, and the loop in
`effbook.training.train`. Names are imported when they are asked for: settings (`config`) need no torch.
"""

import importlib

_FROM = {
    "CompRess": "baselines",
    "DistillSettings": "config",
    "DistillViews": "views",
    "Distilled": "distilling",
    "RegressBN": "baselines",
    "SimReg": "step",
    "Student": "networks",
    "Teachers": "networks",
    "cached_features": "cache",
    "class_probabilities": "loss",
    "compress_loss": "baselines",
    "distill": "distilling",
    "distillation_loss": "loss",
    "features_at": "features",
    "make_method": "step",
    "multi_teacher_loss": "loss",
    "prediction_head": "heads",
    "reduced": "features",
    "regress_loss": "baselines",
    "regression_loss": "loss",
    "supervised_loss": "loss",
}

__all__ = list(_FROM)


def __getattr__(name: str) -> object:
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FROM[name]}"), name)


def __dir__() -> list[str]:
    return __all__
