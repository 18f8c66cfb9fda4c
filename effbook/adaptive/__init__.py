"""ViTs that choose their own compute, image by image: A-ViT, ATS and AdaViT (section 4.1, appendix C).

    from effbook.adaptive import ATS, AtsConfig
    victim = ATS(vit, config=AtsConfig(), mean=mean, std=std)  # any timm VisionTransformer with a class token
    outcome = victim.run(images, execution="dropped")  # images [B, 3, H, W] in 0..1

Each is a `Victim` and runs in two ways that agree: "masked" (differentiable) and "dropped" (really faster). Names are
imported when they are asked for.
"""

import importlib

_FROM = {
    "ATS": "ats",
    "AViT": "avit",
    "AViTConfig": "avit",
    "AdaViT": "adavit",
    "AdaViTConfig": "adavit",
    "AtsConfig": "ats",
    "Bound": "victim",
    "DecisionTrace": "victim",
    "HaltingTrace": "victim",
    "Outcome": "victim",
    "SamplingTrace": "victim",
    "TrainConfig": "training",
    "Victim": "victim",
    "distribution_loss": "avit",
    "ponder_loss": "avit",
    "start_head": "training",
    "train_victim": "training",
    "usage_loss": "adavit",
}

__all__ = list(_FROM)


def __getattr__(name: str) -> object:
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FROM[name]}"), name)


def __dir__() -> list[str]:
    return __all__
