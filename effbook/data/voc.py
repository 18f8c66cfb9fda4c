"""Pascal VOC 2007 and 2012 for object detection: trained on trainval07+12, tested on test07 (table 2.12)."""

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from effbook import data
from effbook.data.manifest import Manifest
from effbook.errors import EffbookError

PARTS = {"train": (("VOC2007", "trainval"), ("VOC2012", "trainval")), "test": (("VOC2007", "test"),)}
CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, kw_only=True)
class BoxedFiles:
    """Image files with the boxes of their objects: for each of ``paths`` [N] the ``boxes`` float32 [K, 4] (left, top,
    right, bottom in pixels from 0, right and bottom just behind the object), ``labels`` int64 [K] and ``difficult``
    bool [K]; names in ``classes``.
    """

    paths: tuple[Path, ...]
    boxes: tuple[np.ndarray, ...]
    labels: tuple[np.ndarray, ...]
    difficult: tuple[np.ndarray, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)


def load_voc(split: str) -> BoxedFiles:
    """The images and objects of `train` or `test`, from the cache; no image is decoded.

    Raises `EffbookError` where it isn't fetched, is laid out otherwise, or holds another number than its manifest says.
    """
    described = data._described("voc", split, "images")
    return data._read(read_voc, described, split, described)


def read_voc(folder: Path, split: str, described: Manifest) -> BoxedFiles:
    """The split's lists in their order, and of each image the objects in the order of its XML file.

    Raises `EffbookError` for images that are listed but not there, an object of a class that the manifest lacks, a box
    without an area, and XML that brings definitions of its own.
    """
    number = {name: i for i, name in enumerate(described.classes)}
    paths, boxes, labels, difficult = [], [], [], []
    for year, name in PARTS[split]:
        root = folder / "VOCdevkit" / year
        for line in (root / f"ImageSets/Main/{name}.txt").read_text(encoding="utf-8").splitlines():
            if not line.strip():
                continue
            image = line.split()[0]
            paths.append(root / f"JPEGImages/{image}.jpg")
            found = _objects(root / f"Annotations/{image}.xml", number)
            boxes.append(np.array([box for box, _, _ in found], dtype=np.float32).reshape(-1, 4))
            labels.append(np.array([label for _, label, _ in found], dtype=np.int64))
            difficult.append(np.array([hard for _, _, hard in found], dtype=bool))
    gone = [path for path in paths if not path.is_file()]
    if gone:
        raise EffbookError(
            f"{len(gone)} of the {len(paths)} images of {described.name} in {split} are missing, {gone[0]} for one",
            f"unpack its archives again (see {described.homepage})",
        )
    return BoxedFiles(
        paths=tuple(paths),
        boxes=tuple(boxes),
        labels=tuple(labels),
        difficult=tuple(difficult),
        classes=described.classes,
    )


def _objects(path: Path, number: dict[str, int]) -> list[tuple[tuple[float, ...], int, bool]]:
    """Box, label and whether it is difficult, of each object in an XML file."""
    found = []
    for entry in ElementTree.parse(path, ElementTree.XMLParser(target=_Plain())).getroot().iterfind("object"):
        name = entry.findtext("name", "").strip()
        if name not in number:
            raise EffbookError(f"{path} has an object {name!r}, which is no class of VOC", "restore that file")
        left, top, right, bottom = (float(entry.findtext(f"bndbox/{corner}", "nan")) for corner in CORNERS)
        box = left - 1, top - 1, right, bottom  # its pixels count from 1, and the last one belongs to the object
        if not (box[0] < box[2] and box[1] < box[3]):
            raise EffbookError(f"{path} has a box without an area", "restore that file")
        found.append((box, number[name], entry.findtext("difficult", "0").strip() == "1"))
    return found


class _Plain(ElementTree.TreeBuilder):
    """Refuses a document type, and with it entities that grow without bounds or name other files."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("a file of annotations defines a document type")
