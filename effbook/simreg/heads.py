"""Prediction heads from the student's m to the teacher's d: needed for training, dropped after it (2.2.3.2, A.2.2.5).

    linear     m -> d
    2L         m -> 2m -> d
    4L         m -> 2m -> m -> 2m -> d, two 2L stacked
    2L-equal   m -> d -> d
    4L-equal   m -> d -> d -> d -> d, the wider head of Table 2.8

The widths in the odd places (the first and the third hidden one) have batch norm and ReLU, the others nothing.
"""

import itertools

import torch
from torch import nn

from effbook.errors import EffbookError
from effbook.simreg.config import HEADS, Head
from effbook.training.seeds import seeded


def prediction_head(dim_in: int, dim_out: int, *, kind: Head = "4L", seed: int) -> nn.Sequential:
    """The head [B, m] -> [B, d], initialised from the seed alone; "none" gives back what it gets.

    Raises EffbookError for an unknown kind or a width below 1. Source: A.2.2.5.
    """
    if kind not in HEADS:
        raise EffbookError(f"the head is {kind!r}", f"choose one of {', '.join(HEADS)}")
    m, d = dim_in, dim_out
    if min(m, d) < 1:
        raise EffbookError(f"a head of widths {m} and {d}", "give widths of at least 1")
    widths = {
        "none": [m],
        "linear": [m, d],
        "2L": [m, 2 * m, d],
        "4L": [m, 2 * m, m, 2 * m, d],
        "2L-equal": [m, d, d],
        "4L-equal": [m, d, d, d, d],
    }[kind]
    layers: list[nn.Module] = []
    with seeded(seed, m, d), torch.device("cpu"):
        for i, (wide_in, wide_out) in enumerate(itertools.pairwise(widths), start=1):
            layers.append(nn.Linear(wide_in, wide_out))
            if i % 2 and i < len(widths) - 1:  # of 4L the first and the third; of linear none
                layers += [nn.BatchNorm1d(wide_out), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers)
