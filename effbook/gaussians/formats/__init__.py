"""Files that other tools read and write: 3D Gaussian splatting's .ply, .splat and .spz."""

from pathlib import Path

from effbook.errors import EffbookError
from effbook.gaussians.formats.ply import read_ply, write_ply
from effbook.gaussians.formats.splat import read_splat, write_splat
from effbook.gaussians.formats.spz import read_spz, write_spz

__all__ = [
    "READERS",
    "WRITERS",
    "ending",
    "read_ply",
    "read_splat",
    "read_spz",
    "write_ply",
    "write_splat",
    "write_spz",
]

READERS = {".ply": read_ply, ".splat": read_splat, ".spz": read_spz}
WRITERS = {".ply": write_ply, ".splat": write_splat, ".spz": write_spz}


def ending(path: Path) -> str:
    """The ending of a scene's file in small letters. Raises EffbookError for one that no format here has."""
    found = path.suffix.lower()
    if found not in READERS:
        raise EffbookError(f"{path} has an unknown ending", f"choose one of {', '.join(READERS)}")
    return found
