"""Few labels: a linear layer that sees 1 % or 10 % of them (Table 2.4), by a published list or by a draw."""

import re
from collections.abc import Sequence
from pathlib import Path, PurePath

import torch
from torch import Tensor

from effbook.errors import EffbookError
from effbook.evaluate.checks import check_labels, class_count
from effbook.evaluate.linear import LinearResult, LinearSettings, linear_evaluation

_NAME = re.compile(r"n\d{8}_\d+\.JPEG")


def read_list(path: Path | str) -> tuple[str, ...]:
    """File names of a list of labelled ImageNet images, one a line, as `n01440764_10026.JPEG`.

    Raises `EffbookError` for a missing or empty file, a line of another form, and a name that stands twice.
    """
    path = Path(path)
    try:
        names = tuple(path.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise EffbookError(f"{path.name} cannot be read as a list of images", "check the path") from error
    wrong = next((name for name in names if not _NAME.fullmatch(name)), None)
    if not names or wrong is not None:
        what = "is empty" if wrong is None else f"has {wrong[:40]!r} where the name of an ImageNet image should be"
        raise EffbookError(f"{path.name} {what}", "give one name a line, as n01440764_10026.JPEG")
    if len(set(names)) < len(names):
        raise EffbookError(f"{path.name} names {len(names) - len(set(names))} images twice", "give each once")
    return names


def listed(files: Sequence[str | PurePath], names: Sequence[str]) -> Tensor:
    """Where the images of a list stand in a data set's files, rising; folders do not count.

    Raises `EffbookError` for names that are not there.
    """
    wanted = set(names)
    found = [i for i, file in enumerate(files) if PurePath(file).name in wanted]
    missing = wanted - {PurePath(files[i]).name for i in found}
    if missing:
        raise EffbookError(
            f"{len(missing)} of {len(wanted)} images of the list are not in the data set, such as {min(missing)}",
            "fetch the whole training set",
        )
    return torch.tensor(found, dtype=torch.long)


def few_labels(labels: Tensor, share: float, *, seed: int) -> Tensor:
    """Indices, rising, of a share of labels [N], drawn evenly over the classes.

    As ImageNet's two published lists: ⌊share · N⌋ images in all, equally many of each class, and what is left over one
    each to classes that are drawn. At least one a class. Raises `EffbookError` for a share outside (0, 1], labels below
    0, and a class with too few images.
    """
    check_labels(labels, len(labels), class_count(labels, None), "training")
    if not 0 < share <= 1:
        raise EffbookError(f"{share} is no share of the labels", "choose it above 0 and at most 1")
    labels = labels.cpu().long()
    present, sizes = labels.unique(return_counts=True)
    generator = torch.Generator().manual_seed(seed)
    total = max(len(present), int(share * len(labels) + 1e-9))  # .29 of 100 is 28.999...
    counts = torch.full_like(sizes, total // len(present))
    counts[torch.randperm(len(present), generator=generator)[: total % len(present)]] += 1
    if share == 1:
        counts = sizes
    short = (counts > sizes).nonzero()
    if len(short):
        at = int(short[0])
        raise EffbookError(
            f"Class {int(present[at])} has {int(sizes[at])} images, and an even share of {share:g} needs "
            f"{int(counts[at])}",
            "choose a smaller share",
        )
    order = torch.randperm(len(labels), generator=generator)
    groups = order[labels[order].argsort(stable=True)].split(sizes.tolist())
    drawn = [group[:count] for group, count in zip(groups, counts.tolist(), strict=True)]
    return torch.cat(drawn).sort().values


def few_label_evaluation(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    *,
    chosen: Tensor,
    settings: LinearSettings,
) -> LinearResult:
    """Linear evaluation with labels of the chosen training images alone: features [N, D] or [V, N, D], chosen [n].

    All else is as in `linear_evaluation`, mean and variance of the chosen features included. Raises `EffbookError` as
    it does.
    """
    classes = class_count(train_y, None)  # a class may have no chosen image
    return linear_evaluation(
        train_x[..., chosen, :], train_y[chosen], test_x, test_y, settings=settings, classes=classes
    )
