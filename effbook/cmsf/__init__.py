"""CMSF: constrained mean shift for representation learning, with and without labels (sections 2.1 and A.1).

    from effbook.cmsf import PreviousEpoch, fit
    encoder, history = fit(encoder, dataset, constraint=PreviousEpoch(k=5, k_prime=5), epochs=100)

For more say, put the parts together: `Networks`, a constraint, `MeanShift`, `Views`, and the loop in
`effbook.training.train`. Names are imported when they are asked for: settings (`config`) need no torch.
"""

import importlib

_FROM = {
    "Bank": "effbook.training.bank",
    "Batch": "effbook.training.views",
    "ClassifierSettings": "pseudo",
    "ConfidentPseudoLabel": "constraints",
    "Constraint": "constraints",
    "EpochCache": "previous",
    "FeatureCache": "pseudo",
    "FinetuneSettings": "pseudo",
    "MeanShift": "step",
    "MeanShiftSettings": "config",
    "Moment": "effbook.training.train",
    "Networks": "networks",
    "OtherModality": "constraints",
    "Positives": "constraints",
    "PreviousEpoch": "constraints",
    "PseudoLabels": "labelling",
    "QueryAlone": "constraints",
    "SameLabel": "constraints",
    "ThirdView": "constraints",
    "TrainSettings": "effbook.training.settings",
    "Unconstrained": "constraints",
    "Views": "effbook.training.views",
    "finetune": "pseudo",
    "fit": "fitting",
    "fit_classifier": "pseudo",
    "info_nce": "baselines",
    "label_score": "analysis",
    "mean_shift_loss": "loss",
    "mine": "baselines",
    "multi_instance_nce": "baselines",
    "predict": "pseudo",
    "proto_nw": "baselines",
    "purity": "analysis",
    "ranks": "analysis",
    "supcon": "baselines",
    "supcon_head": "baselines",
}

__all__ = list(_FROM)


def __getattr__(name: str) -> object:
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    where = _FROM[name] if "." in _FROM[name] else f"{__name__}.{_FROM[name]}"
    return getattr(importlib.import_module(where), name)


def __dir__() -> list[str]:
    return __all__
