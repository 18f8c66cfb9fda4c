"""The ten data sets that features are transferred to (dissertation tables A.12 and A.13): layouts, and their splits."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from effbook.data.images import ImageFiles
from effbook.data.manifest import Manifest
from effbook.errors import EffbookError

KEPT_A_CLASS_CALTECH = 30  # for training and validation together


@dataclass(frozen=True, kw_only=True)
class TransferSet:
    """A row of table A.13: its manifest, images a split, and how accuracy is counted.

    Validation images are drawn from each class of `train`: so many, or a percentage; with neither the manifest has a
    split `val`.
    """

    manifest: str
    classes: int
    train: int  # without the validation images
    val: int
    test: int
    measure: Literal["top-1", "mean per class"]
    val_a_class: int = 0
    val_percent: int = 0


_TOP, _MEAN = "top-1", "mean per class"
# fmt: off
TRANSFER_SETS: dict[str, TransferSet] = {
    one.manifest: one
    for one in (
        TransferSet(manifest="food101", classes=101, train=68175, val=7575, test=25250, measure=_TOP, val_a_class=75),
        # The caption names no number for CIFAR-10; 50 a class give the 500 of the table.
        TransferSet(manifest="cifar10", classes=10, train=49500, val=500, test=10000, measure=_TOP, val_a_class=50),
        TransferSet(manifest="cifar100", classes=100, train=45000, val=5000, test=10000, measure=_TOP, val_a_class=50),
        TransferSet(manifest="sun397", classes=397, train=15880, val=3970, test=19850, measure=_TOP, val_a_class=10),
        TransferSet(manifest="cars", classes=196, train=6509, val=1635, test=8041, measure=_TOP, val_percent=20),
        TransferSet(manifest="aircraft", classes=100, train=5367, val=1300, test=3333, measure=_MEAN, val_percent=20),
        TransferSet(manifest="dtd", classes=47, train=1880, val=1880, test=1880, measure=_TOP),
        TransferSet(manifest="pets", classes=37, train=2940, val=740, test=3669, measure=_MEAN, val_a_class=20),
        # The table says 101 classes; its sizes are those of 102, the background among them.
        TransferSet(
            manifest="caltech101-background", classes=102, train=2550, val=510, test=6084, measure=_MEAN, val_a_class=5
        ),
        TransferSet(manifest="flowers102", classes=102, train=1020, val=1020, test=6149, measure=_MEAN),
    )
}
# fmt: on


def hold_out(labels: np.ndarray, one: TransferSet, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images to train on and to validate on, both sorted int64, for the labels [N] of split `train`.

    Each class gives `val_a_class` images, or `val_percent` of its own to the nearest image (table A.13), drawn from the
    seed. Raises `EffbookError` where there is a split `val`, and for a class that would be left empty.
    """
    if not one.val_a_class and not one.val_percent:
        raise EffbookError(f"{one.manifest} has a validation set of its own", "load its split val")
    held = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = one.val_a_class or (len(members) * one.val_percent + 50) // 100
        if count >= len(members):
            raise EffbookError(
                f"class {label} of {one.manifest} has {len(members)} images, and {count} are for validation",
                "give all images of the split train",
            )
        held.append(np.random.default_rng([seed, int(label)]).permutation(members)[:count])
    val = np.sort(np.concatenate(held)) if held else np.empty(0, dtype=np.int64)
    return np.setdiff1d(np.arange(len(labels)), val), val


def read_cars(folder: Path, split: str, described: Manifest) -> ImageFiles:
    """Stanford Cars, from the makers' tables: an image's file name and its class from 1."""
    from scipy.io import loadmat

    root = folder / "stanford_cars"
    table = root / ("devkit/cars_train_annos.mat" if split == "train" else "cars_test_annos_withlabels.mat")
    rows = np.atleast_1d(loadmat(table, squeeze_me=True)["annotations"])
    names = loadmat(root / "devkit/cars_meta.mat", squeeze_me=True)["class_names"]
    return ImageFiles(
        paths=tuple(root / f"cars_{split}" / str(row["fname"]) for row in rows),
        labels=np.array([int(row["class"]) - 1 for row in rows], dtype=np.int64),
        classes=tuple(str(name) for name in names),
    )


def read_dtd(folder: Path, split: str, described: Manifest) -> ImageFiles:
    """Describable Textures, the first of the makers' ten partitions; a line of a list is "banded/banded_0002.jpg"."""
    lists = {
        part: (folder / f"dtd/labels/{part}1.txt").read_text(encoding="utf-8").split() for part in described.splits
    }
    classes = tuple(sorted({entry.split("/")[0] for entries in lists.values() for entry in entries}))
    number = {name: i for i, name in enumerate(classes)}
    return ImageFiles(
        paths=tuple(folder / "dtd/images" / entry for entry in lists[split]),
        labels=np.array([number[entry.split("/")[0]] for entry in lists[split]], dtype=np.int64),
        classes=classes,
    )


def read_flowers102(folder: Path, split: str, described: Manifest) -> ImageFiles:
    """Oxford Flowers: one table names the images of each split, the other each image's class from 1."""
    from scipy.io import loadmat
    from torchvision.datasets import Flowers102

    root = folder / "flowers-102"
    key = {"train": "trnid", "val": "valid", "test": "tstid"}[split]
    ids = np.atleast_1d(loadmat(root / "setid.mat", squeeze_me=True)[key]).astype(np.int64)  # from 1
    labels = np.atleast_1d(loadmat(root / "imagelabels.mat", squeeze_me=True)["labels"]).astype(np.int64) - 1
    return ImageFiles(
        paths=tuple(root / f"jpg/image_{i:05d}.jpg" for i in ids),
        labels=labels[ids - 1],
        classes=tuple(Flowers102.classes),
    )


def read_caltech101_background(folder: Path, split: str, described: Manifest) -> ImageFiles:
    """Caltech-101 with its background class, as table A.13 counts: 30 images a class, drawn once, are `train`."""
    root = folder / "101_ObjectCategories"
    classes = tuple(sorted(path.name for path in root.iterdir() if path.is_dir()))
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        images = sorted((root / name).glob("*.jpg"))
        order = np.random.default_rng([102, label]).permutation(len(images))
        kept = order[:KEPT_A_CLASS_CALTECH] if split == "train" else order[KEPT_A_CLASS_CALTECH:]
        paths += [images[i] for i in sorted(kept)]
        labels += [label] * len(kept)
    return ImageFiles(paths=tuple(paths), labels=np.array(labels, dtype=np.int64), classes=classes)
