"""UCF-101: clips of 101 human actions, by the first of its makers' three splits (dissertation A.1.2)."""

from pathlib import Path

import numpy as np

from effbook.data.images import ImageFiles
from effbook.data.manifest import Manifest
from effbook.errors import EffbookError


def read_ucf101(folder: Path, split: str, described: Manifest) -> ImageFiles:
    """Clips of a split, "Archery/v_Archery_g08_c01.avi" a line of its list, and the classes in the order of classInd.

    Raises `EffbookError` for clips that are listed but not there, and names the first.
    """
    lists = folder / "ucfTrainTestlist"
    rows = [line.split() for line in (lists / "classInd.txt").read_text(encoding="utf-8").splitlines() if line.strip()]
    number = {name: int(position) - 1 for position, name in rows}
    lines = (lists / f"{split}list01.txt").read_text(encoding="utf-8").splitlines()
    entries = [line.split()[0] for line in lines if line.strip()]  # the list for training adds the class's number
    paths = tuple(folder / "UCF-101" / entry for entry in entries)
    gone = [path for path in paths if not path.is_file()]
    if gone:
        raise EffbookError(
            f"{len(gone)} of the {len(paths)} clips of {described.name} in {split} are missing, {gone[0]} for one",
            f"unpack UCF101.rar again (see {described.homepage})",
        )
    labels = np.array([number[entry.split("/")[0]] for entry in entries], dtype=np.int64)
    return ImageFiles(paths=paths, labels=labels, classes=tuple(sorted(number, key=number.__getitem__)))
