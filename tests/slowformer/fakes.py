"""Victims of a few lines, whose cost one can work out by hand."""

from types import SimpleNamespace

import torch
from torch import nn

LOW, HIGH, CORNER = 100.0, 500.0, 4


def drawn(*shape, seed=0, most=1.0, dtype=torch.float32):
    return most * torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class Red:
    """The cost rises with the mean red of the top left corner; the class is whether the image is bright."""

    def run(self, images, execution="dropped"):
        share = self.surrogate(images)
        bright = images.mean((1, 2, 3)) - 0.3
        trace = SimpleNamespace(share=share) if execution == "masked" else None
        macs = LOW + (HIGH - LOW) * share.detach().double()
        return SimpleNamespace(logits=torch.stack([-bright, bright], 1), macs=macs, usage={}, trace=trace)

    def surrogate(self, images):
        return images[:, 0, :CORNER, :CORNER].mean((1, 2))

    def bound(self):
        return SimpleNamespace(low_macs=LOW, high_macs=HIGH)


class Gate(nn.Module, Red):
    """The cost is a learned gate of the corner's colours and of the whole image's brightness."""

    def __init__(self):
        super().__init__()
        self.colours = nn.Parameter(torch.tensor([6.0, 1.0, 0.5]))
        self.brightness = nn.Parameter(torch.tensor(1.0))

    def surrogate(self, images):
        corner = images[:, :, :CORNER, :CORNER].mean((2, 3)) - 0.25  # [B, 3]
        return (corner @ self.colours + self.brightness * images.mean((1, 2, 3)) - 1).sigmoid()


class Shows:
    """Its trace and logits are what it was given; `clean` logits come first where they differ."""

    def __init__(self, logits=None, **trace):
        self.logits, self.trace, self.calls = logits, SimpleNamespace(**trace), 0

    def run(self, images, execution="dropped"):
        self.calls += 1
        return SimpleNamespace(logits=self.logits, macs=None, usage={}, trace=self.trace)
