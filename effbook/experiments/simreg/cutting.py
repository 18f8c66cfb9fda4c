"""A ResNet cut in two for detection, and the pictures that detectors are trained and tested on (Table 2.12)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.io import ImageReadMode, decode_image

from effbook.backbones.convnets import SmallResNet, whitened
from effbook.data.canvases import canvases
from effbook.data.voc import load_voc
from effbook.experiments.shared.splits import split

OBJECT_PX = 32  # of what canvases are composed of


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """uint8 pictures [3, H, W] by number, the objects of each, and how many classes these have."""

    images: Any
    objects: list[dict[str, Tensor]]
    classes: int


def canvas_pictures(dataset: str, part: str, *, wanted: int | None, count: int, canvas_px: int, seed: int) -> Pictures:
    """So many canvases of the images of a part, or of `wanted` of them."""
    found = split(dataset, part, size_px=OBJECT_PX, wanted=wanted, seed=seed)
    own = found.images.permute(0, 2, 3, 1).contiguous().numpy()
    images, objects = canvases(own, found.labels.numpy(), count=count, seed=seed, size_px=canvas_px)
    return Pictures(images=images, objects=objects, classes=len(found.classes))


def voc_pictures(part: str) -> Pictures:
    """Pascal VOC's photographs of "train" or "test"; of the former those with an object."""
    found = load_voc(part)
    objects = [
        {"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(labels), "difficult": torch.from_numpy(difficult)}
        for boxes, labels, difficult in zip(found.boxes, found.labels, found.difficult, strict=True)
    ]
    kept = [i for i, one in enumerate(objects) if part == "test" or len(one["labels"])]
    return Pictures(
        images=Decoded([found.paths[i] for i in kept]), objects=[objects[i] for i in kept], classes=len(found.classes)
    )


class Decoded:
    """Image files as a sequence of uint8 [3, H, W], each decoded when it is asked for."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return decode_image(str(self.paths[index]), mode=ImageReadMode.RGB)


def cut(student: nn.Module) -> tuple[nn.Module, nn.Module]:
    """All but the last stage of a ResNet, [B, 3, H, W] to [B, C, H', W'], and the last with a mean, to [R, m]."""
    if isinstance(student, SmallResNet):
        widths = [block.conv1.out_channels for block in student.stages]
        first = widths.index(widths[-1])  # block of the last stage
        trunk, last = SmallTrunk(student, first), student.stages[first:]
        channels = widths[first - 1]
    else:
        names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
        trunk, last = nn.Sequential(*(getattr(student, name) for name in names)), student.layer4
        channels = last[0].conv1.in_channels
    trunk.out_channels = channels
    head = nn.Sequential(last, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    head.num_features = student.num_features
    return trunk, head


class SmallTrunk(nn.Module):
    """The whitening stem of a small ResNet, which is never trained, and its first blocks."""

    def __init__(self, student: SmallResNet, blocks: int) -> None:
        super().__init__()
        self.register_buffer("filters", student.filters)
        self.stages = student.stages[:blocks]

    def forward(self, x: Tensor) -> Tensor:
        return self.stages(whitened(x, self.filters))
