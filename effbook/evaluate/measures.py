"""Accuracy as Table A.13 measures it: over all images, or the mean over the classes."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from effbook.errors import EffbookError
from effbook.evaluate.checks import check_features, check_labels
from effbook.evaluate.vision import accuracy

Measure = Literal["top1", "mean"]


def top_k_accuracy(logits: Tensor, labels: Tensor, *, k: int) -> float:
    """Percent of labels [N] among the k highest of logits [N, C]; between equal logits the lower class comes first.

    Raises `EffbookError` where the shapes do not fit, a logit is not finite, a label lies outside 0 ... C - 1 or k
    outside 1 ... C.
    """
    check_features(logits, "logits as")
    check_labels(labels, len(logits), logits.shape[1], "logits as")
    if not 1 <= k <= logits.shape[1]:
        raise EffbookError(f"The top {k} of {logits.shape[1]} classes are not defined", "choose a k from 1 to that")
    labels = labels.to(logits.device).long()
    own = logits.gather(1, labels[:, None])  # [N, 1]
    lower = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & lower)).sum(dim=1)  # [N], 0 is the highest
    return 100.0 * (rank < k).double().mean().item()


def mean_per_class(logits: Tensor, labels: Tensor) -> float:
    """Accuracy of each class in percent, averaged over the classes that labels [N] name (Table A.13, "Mean").

    Raises `EffbookError` as `top_k_accuracy` does.
    """
    check_features(logits, "logits as")
    check_labels(labels, len(logits), logits.shape[1], "logits as")
    labels = labels.to(logits.device).long()
    right = (logits.argmax(dim=1) == labels).double()
    count = torch.bincount(labels)
    hits = torch.zeros(len(count), dtype=torch.float64, device=logits.device).index_add_(0, labels, right)
    seen = count > 0
    return 100.0 * (hits[seen] / count[seen]).mean().item()


MEASURES: Mapping[str, Callable[[Tensor, Tensor], float]] = MappingProxyType({"top1": accuracy, "mean": mean_per_class})
