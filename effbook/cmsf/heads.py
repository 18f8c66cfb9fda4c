"""Projector and predictor: Linear, batch norm, ReLU, Linear (2.1.3; widths from the released code)."""

import torch
from torch import nn

from effbook.errors import EffbookError
from effbook.training.seeds import seeded


def mlp(wide_in: int, hidden: int, wide_out: int, *, seed: int, batch_norm: bool = True) -> nn.Sequential:
    """Linear, BN, ReLU, Linear from [B, wide_in] to [B, wide_out], initialised from the seed alone."""
    if min(wide_in, hidden, wide_out) < 1:
        raise EffbookError(f"a head of widths {wide_in}, {hidden}, {wide_out}", "give widths of at least 1")
    with seeded(seed, wide_in, hidden, wide_out), torch.device("cpu"):
        between = [nn.BatchNorm1d(hidden)] if batch_norm else []
        return nn.Sequential(nn.Linear(wide_in, hidden), *between, nn.ReLU(inplace=True), nn.Linear(hidden, wide_out))


def projector(dim: int, *, seed: int, batch_norm: bool = True) -> nn.Sequential:
    """d -> 2d -> d/4, on both networks: 2048 -> 4096 -> 512 for ResNet-50, 512 -> 1024 -> 128 for ResNet-18."""
    return mlp(dim, 2 * dim, max(1, dim // 4), seed=seed, batch_norm=batch_norm)


def predictor(dim: int, *, seed: int, batch_norm: bool = True) -> nn.Sequential:
    """d/4 -> 2d -> d/4, on the online network alone; `dim` is the encoder's d, as for the projector."""
    return mlp(max(1, dim // 4), 2 * dim, max(1, dim // 4), seed=seed + 1, batch_norm=batch_norm)
