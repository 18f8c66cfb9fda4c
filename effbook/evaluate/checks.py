"""What every evaluation asks of its features and labels before it starts."""

import torch
from torch import Tensor

from effbook.errors import EffbookError


def check_features(x: Tensor, what: str) -> None:
    """Features [N, D] with N and D of at least 1, all of them finite; else `EffbookError` that names ``what``."""
    if x.ndim != 2 or not x.numel():
        raise EffbookError(f"The {what} features have shape {tuple(x.shape)}", "give at least one, as [N, D]")
    if not torch.isfinite(x).all():
        bad = int((~torch.isfinite(x)).any(dim=1).sum())
        raise EffbookError(
            f"{bad} of {len(x)} {what} features are not finite", "look for the images or the training that gave them"
        )


def check_labels(y: Tensor, count: int, classes: int, what: str) -> None:
    """Whole labels [``count``] in 0 ... ``classes`` - 1; else `EffbookError` that names ``what``."""
    if y.ndim != 1 or len(y) != count or not len(y) or y.is_floating_point() or y.dtype == torch.bool:
        raise EffbookError(
            f"{y.dtype} labels of shape {tuple(y.shape)} do not go with {count} {what} features",
            "give whole numbers [N], one for each of at least one feature",
        )
    least, most = int(y.min()), int(y.max())
    if least < 0 or most >= classes:
        raise EffbookError(
            f"The {what} labels reach from {least} to {most}, outside 0 to {classes - 1}",
            "leave out what has no label, and count the classes that there are",
        )


def class_count(train_y: Tensor, classes: int | None) -> int:
    """``classes``, or the training labels' highest and one."""
    return (int(train_y.max()) + 1 if len(train_y) else 0) if classes is None else classes


def check_pairs(
    train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor, classes: int | None, what: str = "test"
) -> int:
    """`check_features` and `check_labels` of both sets, equal widths; returns the number of classes."""
    found = class_count(train_y, classes)
    for x, y, name in ((train_x, train_y, "training"), (test_x, test_y, what)):
        check_features(x, name)
        check_labels(y, len(x), found, name)
    if train_x.shape[1] != test_x.shape[1]:
        raise EffbookError(
            f"The training features have {train_x.shape[1]} dimensions, the {what} features {test_x.shape[1]}",
            "take both from one network",
        )
    return found
