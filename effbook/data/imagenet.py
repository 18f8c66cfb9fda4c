"""ImageNet-1k and its subsets, as folders of a class each or with the flat validation set that its makers publish."""

import csv
import os
from pathlib import Path

import numpy as np

from effbook.data.coarse import IMAGENET_COARSE
from effbook.data.images import ImageFiles
from effbook.data.manifest import Manifest
from effbook.errors import EffbookError

ENDINGS = (".jpeg", ".jpg", ".png")
DEVKIT = "ILSVRC2012_devkit_t12/data"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
SOLUTION = "LOC_val_solution.csv"


def read_imagenet(folder: Path, split: str, described: Manifest) -> ImageFiles:
    """Paths of the manifest's classes, or of all 1000, sorted by class and name; `test` is the official val.

    ``train/<wnid>/*`` and ``val/<wnid>/*``; or ``val/*`` flat, with the makers' development kit or the solution table
    of Kaggle beside it. Other classes' folders are left alone. Raises `EffbookError` for classes that are missing or
    empty, and names them.
    """
    classes = tuple(sorted(described.classes or IMAGENET_COARSE))
    root = folder / ("train" if split == "train" else "val")
    with os.scandir(root) as entries:
        has_folders = any(entry.is_dir() for entry in entries)
    found = _by_folder(root, classes) if has_folders else _flat(root, classes)
    lacking = [name for name in classes if not found[name]]
    if lacking:
        named = ", ".join(lacking[:3]) + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else "")
        raise EffbookError(
            f"{root} has no image of {len(lacking)} of the {len(classes)} classes of {described.name}: {named}",
            f"put a folder of images for each of them there (see {described.homepage})",
        )
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(found[name]) for name in classes])
    return ImageFiles(paths=tuple(path for name in classes for path in found[name]), labels=labels, classes=classes)


def _by_folder(root: Path, classes: tuple[str, ...]) -> dict[str, list[Path]]:
    return {name: _images(root / name) if (root / name).is_dir() else [] for name in classes}


def _images(folder: Path) -> list[Path]:
    return [folder / name for name in sorted(os.listdir(folder)) if name.lower().endswith(ENDINGS)]


def _flat(root: Path, classes: tuple[str, ...]) -> dict[str, list[Path]]:
    images = _images(root)
    devkit = next((base / DEVKIT for base in (root.parent, root) if (base / DEVKIT / TRUTH).is_file()), None)
    solution = next((base / SOLUTION for base in (root.parent, root) if (base / SOLUTION).is_file()), None)
    if devkit is not None:
        wnids = _validation_wnids(devkit)  # of image 1, 2, ...
        class_of = {f"ILSVRC2012_val_{i:08d}": wnid for i, wnid in enumerate(wnids, 1)}
    elif solution is not None:
        with solution.open(encoding="utf-8", newline="") as stream:
            class_of = {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(stream)}
    else:
        raise EffbookError(
            f"{root} holds no folder of a class, and nothing says which image is of which",
            f"lay the images into folders by wnid, or put {DEVKIT} or {SOLUTION} beside it",
        )
    strangers = [path.name for path in images if path.stem not in class_of]
    if strangers:
        raise EffbookError(
            f"no label is known for {strangers[0]} in {root}", "remove what is none of ImageNet's images"
        )
    found: dict[str, list[Path]] = {name: [] for name in classes}
    for path in images:
        found.get(class_of[path.stem], []).append(path)
    return found


def _validation_wnids(devkit: Path) -> list[str]:
    """The wnid of each validation image: the ground truth gives a number, meta.mat the wnid of that number."""
    from scipy.io import loadmat

    synsets = loadmat(devkit / "meta.mat", squeeze_me=True)["synsets"]
    wnid_of = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
    return [wnid_of[int(number)] for number in (devkit / TRUTH).read_text(encoding="utf-8").split()]
