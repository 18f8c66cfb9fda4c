"""SlowFormer: a universal patch that raises the compute of adaptive vision transformers (section 4.1, appendix C).

    from effbook.slowformer import AttackConfig, SurrogateLoss, judge, train_patch
    patch, losses = train_patch(victim, train_split, loss=SurrogateLoss(), config=AttackConfig(patch_px=28, batch=32))
    print(judge(victim, test_split, patch).success_percent)

A victim is whatever has the three methods of `effbook.adaptive.Victim`. Names are imported when they are asked for:
settings (`config`) need no torch.
"""

import importlib

_FROM = {
    "ATSLoss": "losses",
    "ATS_WEIGHTS": "losses",
    "AViTLoss": "losses",
    "AdaViTLoss": "losses",
    "AttackConfig": "config",
    "Attacked": "attack",
    "DeSparsify": "baselines",
    "DefenceConfig": "config",
    "Defended": "defence",
    "Found": "suffix",
    "Judgement": "attack",
    "Look": "losses",
    "NonTargeted": "losses",
    "OriginalLoss": "defence",
    "Patch": "patch",
    "Perturbation": "baselines",
    "Prompt": "suffix",
    "SuffixConfig": "config",
    "SurrogateLoss": "losses",
    "Targeted": "losses",
    "WithTask": "losses",
    "Written": "suffix",
    "chat_prompts": "suffix",
    "defend": "defence",
    "find_suffix": "suffix",
    "judge": "attack",
    "load_patch": "patch",
    "measure_suffix": "suffix",
    "optimise": "attack",
    "paste": "patch",
    "project": "patch",
    "random_patch": "baselines",
    "random_suffix": "suffix",
    "save_patch": "patch",
    "start": "patch",
    "tap_targets": "baselines",
    "train_patch": "attack",
    "train_perturbation": "baselines",
    "train_taps": "baselines",
}

__all__ = list(_FROM)


def __getattr__(name: str) -> object:
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FROM[name]}"), name)


def __dir__() -> list[str]:
    return __all__
