"""Whether COLMAP's binary files hold as much as they claim: pycolmap believes any count and allocates or reads for it.

The layouts are those that COLMAP documents under "Output Format", and of its class Reconstruction for rigs and frames.
"""

import struct
from collections.abc import Callable
from pathlib import Path

from effbook.errors import EffbookError

LENS_PARAMETERS = (3, 4, 4, 5, 8, 8, 12, 5, 4, 5, 12, 16, 4, 5, 3, 4, 6, 2)  # by the number of the camera's model


def check_whole(folder: Path) -> None:
    """Raise EffbookError if a binary file of the model is shorter than its counts say."""
    for name, step in STEPS.items():
        path = folder / name
        if not path.is_file():
            continue
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise EffbookError(f"{path} cannot be read ({error.strerror})", "make it readable") from None
        if not _whole(raw, step):
            raise EffbookError(f"{path} ends before what its counts claim", "copy it or reconstruct it again")


def names_in_text(folder: Path) -> dict[int, str]:
    """The images' names by their numbers, from a model in text; none where it is binary, which pycolmap reads first.

    A line of an image has nine numbers and its name, which may hold spaces; the line after it has its points.
    """
    path, found = folder / "images.txt", {}
    if (folder / "images.bin").is_file() or not path.is_file():
        return found
    try:
        lines = iter(path.read_text(encoding="utf-8", errors="surrogateescape").split("\n"))
    except OSError as error:
        raise EffbookError(f"{path} cannot be read ({error.strerror})", "make it readable") from None
    for line in lines:
        parts = line.strip().split(maxsplit=9)
        if not parts or parts[0].startswith("#"):
            continue
        if len(parts) == 10 and parts[0].isdigit():
            found[int(parts[0])] = parts[9]
        next(lines, None)
    return found


def _whole(raw: bytes, step: Callable[[bytes, int], int]) -> bool:
    """A file is a count of 64 bits and its records; `step` gives where the record that begins at a place ends."""
    try:
        (count,) = struct.unpack_from("<Q", raw)
        at = 8
        for _ in range(count):
            at = step(raw, at)
            if at > len(raw):
                return False
    except (struct.error, IndexError, ValueError):
        return False
    return True


def _camera(raw: bytes, at: int) -> int:
    kind = struct.unpack_from("<I", raw, at + 4)[0]
    return at + 24 + 8 * (LENS_PARAMETERS[kind] if kind < len(LENS_PARAMETERS) else 0)


def _image(raw: bytes, at: int) -> int:
    after_name = raw.index(b"\0", at + 64) + 1
    return after_name + 8 + 24 * struct.unpack_from("<Q", raw, after_name)[0]


def _point(raw: bytes, at: int) -> int:
    return at + 51 + 8 * struct.unpack_from("<Q", raw, at + 43)[0]


def _rig(raw: bytes, at: int) -> int:
    sensors = struct.unpack_from("<I", raw, at + 4)[0]
    at += 16 if sensors else 8
    for _ in range(1, sensors):
        at += 9 + 56 * bool(raw[at + 8])  # a pose, if known
    return at


def _frame(raw: bytes, at: int) -> int:
    return at + 68 + 16 * struct.unpack_from("<I", raw, at + 64)[0]


STEPS = {"cameras.bin": _camera, "images.bin": _image, "points3D.bin": _point, "rigs.bin": _rig, "frames.bin": _frame}
