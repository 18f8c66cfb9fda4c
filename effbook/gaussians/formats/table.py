"""Which ending stands for which format, with what reads and writes it."""

import os
from collections.abc import Callable
from pathlib import Path

from effbook.errors import EffbookError
from effbook.gaussians.formats.ply import read_ply, write_ply
from effbook.gaussians.formats.sog import META, read_sog
from effbook.gaussians.formats.sog_writing import write_sog
from effbook.gaussians.formats.splat import read_splat, write_splat
from effbook.gaussians.formats.spz import read_spz, write_spz

READERS = {".ply": read_ply, ".splat": read_splat, ".spz": read_spz, ".sog": read_sog}
WRITERS = {".ply": write_ply, ".splat": write_splat, ".spz": write_spz, ".sog": write_sog}


def ending(path: Path) -> str:
    """The ending of a scene's file in small letters; that of SOG for its meta.json, or a folder that holds one.

    Raises EffbookError for one that no format here has.
    """
    if path.name == META or (os.path.isdir(path) and (path / META).is_file()):
        return ".sog"
    found = path.suffix.lower()
    if found not in READERS:
        raise EffbookError(f"{path} has an unknown ending", f"choose one of {', '.join(READERS)}")
    return found


def writer(path: Path) -> Callable[..., None]:
    """What writes the format of a file's ending. Raises EffbookError for one that no format here has."""
    found = WRITERS.get(path.suffix.lower())
    if found is None:
        raise EffbookError(f"{path} has an unknown ending", f"choose one of {', '.join(WRITERS)}")
    return found
