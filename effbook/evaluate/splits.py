"""The ten transfer data sets of Table A.13, and how their validation splits are drawn."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from effbook.errors import EffbookError
from effbook.evaluate.checks import check_labels
from effbook.evaluate.measures import Measure


@dataclass(frozen=True, kw_only=True)
class Split:
    """Indices of images, rising. ``test`` is empty where the data set has a test set of its own."""

    train: Tensor
    val: Tensor
    test: Tensor


@dataclass(frozen=True, kw_only=True)
class TransferSet:
    """A row of Table A.13: counts, the measure, and the rule for validation.

    Images for validation are taken from the official training set: ``val_a_class`` of each class or ``val_percent`` of
    each, to the nearest image; neither where there is an official validation set. Of a data set without any official
    split, ``kept_a_class`` of each class are for training and validation, and the rest for testing.
    """

    classes: int
    train: int
    val: int
    test: int
    measure: Measure
    val_a_class: int = 0
    val_percent: int = 0
    kept_a_class: int = 0

    def split(self, labels: Tensor, *, seed: int) -> Split:
        """`draw_split` by this row's rule: labels [N] of the official training set (Caltech-101: of all images)."""
        if not self.val_a_class and not self.val_percent:
            raise EffbookError("This data set has a validation set of its own", "use that, and draw none")
        return draw_split(
            labels,
            classes=self.classes,
            val_a_class=self.val_a_class,
            val_percent=self.val_percent,
            kept_a_class=self.kept_a_class,
            seed=seed,
        )


def draw_split(
    labels: Tensor, *, classes: int, val_a_class: int = 0, val_percent: int = 0, kept_a_class: int = 0, seed: int
) -> Split:
    """Training, validation and (with ``kept_a_class``) test indices, drawn class by class from labels [N].

    See `TransferSet` for the rules (caption of Table A.13). Raises `EffbookError` unless one rule gives the validation
    set, for labels outside 0 ... classes - 1, and for a class that leaves nothing to train on.
    """
    check_labels(labels, len(labels), classes, "data set's")
    if min(val_a_class, val_percent, kept_a_class) < 0 or (val_a_class > 0) == (val_percent > 0) or val_percent >= 100:
        raise EffbookError(
            f"{val_a_class} images and {val_percent} % of each class give no validation set",
            "choose one of the two above 0, and less than 100 %",
        )
    labels = labels.cpu().long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    groups = order[labels[order].argsort(stable=True)].split(labels.bincount(minlength=classes).tolist())
    parts: dict[str, list[Tensor]] = {"train": [], "val": [], "test": []}
    for c, own in enumerate(groups):
        kept, rest = (own[:kept_a_class], own[kept_a_class:]) if kept_a_class else (own, own[:0])
        count = val_a_class or (len(kept) * val_percent + 50) // 100
        if count >= len(kept) or len(kept) < kept_a_class or (kept_a_class and not len(rest)):
            raise EffbookError(
                f"Class {c} has {len(own)} images, too few for {count} to validate on and others to train"
                f"{' and test' if kept_a_class else ''} on",
                "check the labels, or choose a smaller validation set",
            )
        for name, indices in (("val", kept[:count]), ("train", kept[count:]), ("test", rest)):
            parts[name].append(indices)
    return Split(**{name: torch.cat(each).sort().values for name, each in parts.items()})


# CIFAR-10 has no rule in the caption; 50 a class, as for CIFAR-100, give its 500. Caltech-101's counts are those of 102
# classes, the background class among them, with 30 a class for training and validation: the caption says 101, and that
# the 30 are for testing.
TRANSFER_SETS: Mapping[str, TransferSet] = MappingProxyType(
    {
        "food101": TransferSet(classes=101, train=68175, val=7575, test=25250, measure="top1", val_a_class=75),
        "cifar10": TransferSet(classes=10, train=49500, val=500, test=10000, measure="top1", val_a_class=50),
        "cifar100": TransferSet(classes=100, train=45000, val=5000, test=10000, measure="top1", val_a_class=50),
        "sun397": TransferSet(classes=397, train=15880, val=3970, test=19850, measure="top1", val_a_class=10),
        "cars": TransferSet(classes=196, train=6509, val=1635, test=8041, measure="top1", val_percent=20),
        "aircraft": TransferSet(classes=100, train=5367, val=1300, test=3333, measure="mean", val_percent=20),
        "dtd": TransferSet(classes=47, train=1880, val=1880, test=1880, measure="top1"),
        "pets": TransferSet(classes=37, train=2940, val=740, test=3669, measure="mean", val_a_class=20),
        "caltech101": TransferSet(
            classes=102, train=2550, val=510, test=6084, measure="mean", val_a_class=5, kept_a_class=30
        ),
        "flowers": TransferSet(classes=102, train=1020, val=1020, test=6149, measure="mean"),
    }
)
