"""Networks and where their weights come from: the packaged ones, the paper's, tiny ones, and shapes alone."""

from effbook.backbones.architectures import META, meta, pretrained
from effbook.backbones.language import smollm2, toy_lm
from effbook.backbones.vision import (
    IMAGE_MEAN,
    IMAGE_STD,
    ResNet20,
    normalisation,
    resnet18,
    resnet20,
    toy_vit,
    vit_s14,
)

__all__ = [
    "IMAGE_MEAN",
    "IMAGE_STD",
    "META",
    "ResNet20",
    "meta",
    "normalisation",
    "pretrained",
    "resnet18",
    "resnet20",
    "smollm2",
    "toy_lm",
    "toy_vit",
    "vit_s14",
]
