"""Features from within a student, as a network of its own (Tables 2.8 and A.17)."""

from torch import Tensor, nn

from effbook.experiments.shared.encoders import SMALL
from effbook.simreg import features_at

SECOND_LAYER = "1.3"  # of a head of four layers that follows its student: linear, batch norm, ReLU, linear
OF_RESNET = {"conv-1": "conv1"} | {f"resblk-{i}": f"layer{i}" for i in range(1, 5)}


class Inside(nn.Module):
    """What a module within a network gives: images [B, 3, H, W] to vectors [B, about `length`], on the CPU."""

    def __init__(self, network: nn.Module, name: str, *, length: int | None) -> None:
        super().__init__()
        self.network, self.name, self.length = network, name, length

    def forward(self, x: Tensor) -> Tensor:
        return features_at(self.network, x, [self.name], length=self.length)[self.name]


def module_name(layer: str, student: str) -> str:
    """The name of a layer among a student's modules; of a small ResNet, "conv-1" is the first that is trained."""
    if layer == "head-2":
        return SECOND_LAYER
    if student in SMALL:
        blocks = SMALL[student][1]
        return "stages.0.conv1" if layer == "conv-1" else f"stages.{int(layer[-1]) * blocks - 1}"
    return OF_RESNET[layer]
