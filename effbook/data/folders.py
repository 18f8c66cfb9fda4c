"""Data sets that lie as image files: their published folder layouts, read through torchvision where it knows them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from effbook.data.images import ImageFiles
from effbook.data.manifest import Manifest

TRAIN_PER_CLASS_CALTECH = 30  # the usual protocol, and dissertation table A.13
Reader = Callable[[Path, str, Manifest], ImageFiles]


def _same_path(path: str | Path) -> Path:
    """A torchvision image loader that decodes nothing."""
    return Path(path)


def _listed(dataset) -> ImageFiles:
    """All (path, label) pairs of a torchvision data set that was made with `_same_path` as its loader."""
    pairs = [dataset[i] for i in range(len(dataset))]
    return _files(pairs, tuple(dataset.classes))


def _files(pairs: list[tuple[Path, int]], classes: tuple[str, ...]) -> ImageFiles:
    paths = tuple(Path(path) for path, _ in pairs)
    return ImageFiles(paths=paths, labels=np.array([label for _, label in pairs], dtype=np.int64), classes=classes)


def read_aircraft(folder: Path, split: str, described: Manifest) -> ImageFiles:
    """FGVC-Aircraft, 100 variants; `train` is the authors' train and val together, as is usual."""
    from torchvision.datasets import FGVCAircraft

    name = {"train": "trainval", "test": "test"}[split]
    return _listed(FGVCAircraft(str(folder), split=name, annotation_level="variant", loader=_same_path))


def read_food101(folder: Path, split: str, described: Manifest) -> ImageFiles:
    """Food-101 with its own train and test lists."""
    from torchvision.datasets import Food101

    return _listed(Food101(str(folder), split=split, loader=_same_path))


def read_pets(folder: Path, split: str, described: Manifest) -> ImageFiles:
    """Oxford-IIIT Pet, 37 breeds, from its annotation lists (a line: name, class from 1, species, breed)."""
    root = folder / "oxford-iiit-pet"
    listing = root / "annotations" / ("trainval.txt" if split == "train" else "test.txt")
    rows = [line.split() for line in listing.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    names = {int(row[1]) - 1: row[0].rsplit("_", 1)[0].replace("_", " ") for row in rows}
    pairs = [(root / "images" / f"{row[0]}.jpg", int(row[1]) - 1) for row in rows]
    return _files(pairs, tuple(names[i] for i in sorted(names)))


def read_sun397(folder: Path, split: str, described: Manifest) -> ImageFiles:
    """SUN397 with the first of the authors' ten partitions (50 images a class each for train and test)."""
    root = folder / "SUN397"
    names = (root / "ClassName.txt").read_text(encoding="utf-8").split()  # "/a/abbey"
    number = {name: i for i, name in enumerate(names)}
    listing = folder / "Partitions" / ("Training_01.txt" if split == "train" else "Testing_01.txt")
    entries = listing.read_text(encoding="utf-8").split()
    pairs = [(root / entry.lstrip("/"), number[entry.rsplit("/", 1)[0]]) for entry in entries]
    return _files(pairs, tuple(name[3:] for name in names))


def read_caltech101(folder: Path, split: str, described: Manifest) -> ImageFiles:
    """Caltech-101 without its background class; 30 images a class for training, drawn with a fixed seed."""
    from torchvision.datasets import ImageFolder

    class Objects(ImageFolder):
        def find_classes(self, directory):
            classes = [name for name in super().find_classes(directory)[0] if name != "BACKGROUND_Google"]
            return classes, {name: i for i, name in enumerate(classes)}

    found = Objects(str(folder / "101_ObjectCategories"))
    labels = np.array(found.targets)
    chosen = []
    for label in range(len(found.classes)):
        order = np.random.default_rng([101, label]).permutation(np.flatnonzero(labels == label))
        part = order[:TRAIN_PER_CLASS_CALTECH] if split == "train" else order[TRAIN_PER_CLASS_CALTECH:]
        chosen += sorted(part.tolist())
    return _files([found.samples[i] for i in chosen], tuple(found.classes))


def read_cub200(folder: Path, split: str, described: Manifest) -> ImageFiles:
    """CUB-200-2011 from its three lists: an image's path, its class and whether it is for training."""
    root = folder / "CUB_200_2011"

    def table(name: str) -> dict[str, str]:
        lines = (root / name).read_text(encoding="utf-8").splitlines()
        return dict(line.split(maxsplit=1) for line in lines if line)

    paths, labels, is_train = table("images.txt"), table("image_class_labels.txt"), table("train_test_split.txt")
    classes = tuple(name.split(".", 1)[-1].replace("_", " ") for name in table("classes.txt").values())
    wanted = "1" if split == "train" else "0"
    pairs = [(root / "images" / paths[i], int(labels[i]) - 1) for i in paths if is_train[i] == wanted]
    return _files(pairs, classes)


def read_imagenet_folder(folder: Path, split: str, described: Manifest) -> ImageFiles:
    """ImageNet as torchvision's ImageFolder lays it out (train/n01440764/*.JPEG), only the manifest's classes."""
    from torchvision.datasets import ImageFolder

    class Chosen(ImageFolder):
        def find_classes(self, directory):
            classes = sorted(described.classes) or super().find_classes(directory)[0]
            return classes, {name: i for i, name in enumerate(classes)}

    found = Chosen(str(folder / ("train" if split == "train" else "val")))  # the dissertation tests on val
    return _files(found.samples, tuple(found.classes))


FOLDER_READERS: dict[str, Reader] = {
    "aircraft": read_aircraft,
    "food101": read_food101,
    "pets": read_pets,
    "sun397": read_sun397,
    "caltech101": read_caltech101,
    "cub200": read_cub200,
    "imagenet-folder": read_imagenet_folder,
}
