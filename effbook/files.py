"""Writing so that a reader sees the old or the new file, whole; what a killed writer leaves is known by its name.

A file or folder is made beside its place and renamed at the end. This is the one place for it.
"""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LEFT = re.compile(r"\..*\.[0-9a-f]{16}\.tmp")
_LONGEST = 180  # bytes of the name that a temporary one repeats: with its own it must fit into 255


@contextmanager
def placed(path: Path, *, lasting: bool = False, alone: bool = False) -> Iterator[Path]:
    """A path beside `path` at which the body makes a file or a folder; put in place when the body ends, else removed.

    What was at `path` is replaced at the last moment. `lasting`: a file's bytes are on the disk before, so that no
    power failure leaves it cut. `alone`: the caller holds a lock on the path, so what killed writers left is removed.
    The folder that holds `path` must be there; an OSError is passed on.
    """
    for left in leftovers(path) if alone else ():
        remove(left)
    beside = _beside(path)
    try:
        yield beside
        if lasting:
            with beside.open("rb+") as file:
                os.fsync(file.fileno())
        replace(beside, path)
    finally:
        remove(beside)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a text (as UTF-8) or bytes to `path`; the folders above it are made where they are missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with placed(path, lasting=True) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)


def replace(new: Path, old: Path) -> None:
    """Put a finished file or folder where the old one is, if any; for folders the gap between the two is one rename.

    Both lie on one file system. What was there comes back if the new one cannot be put in place. A folder that another
    process, be it of another machine, puts in place meanwhile is left there, and the new one where it is.
    """
    aside = None
    if old.is_dir() and not old.is_symlink():
        aside = _beside(old)
        try:
            os.replace(old, aside)
        except FileNotFoundError:  # another process has just put it aside
            aside = None
    try:
        os.replace(new, old)
    except BaseException as error:
        won = isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST) and new.is_dir()
        if not won:
            if aside is not None:
                os.replace(aside, old)
            raise
    if aside is not None:
        remove(aside)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def leftovers(path: Path) -> list[Path]:
    """What killed writers of `path` left beside it. Who holds the path's lock may remove it: no writer lives then."""
    own = re.compile(re.escape(f".{_short(path.name)}.") + r"[0-9a-f]{16}\.tmp")
    return [left for left in leftovers_in(path.parent) if own.fullmatch(left.name)]


def leftovers_in(folder: Path) -> list[Path]:
    """What killed writers, or ones that are still at work, left in a folder."""
    return sorted(entry for entry in folder.iterdir() if _LEFT.fullmatch(entry.name)) if folder.is_dir() else []


def size_bytes(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 where there is none."""
    if not path.is_dir() or path.is_symlink():
        return path.lstat().st_size if path.is_symlink() or path.exists() else 0
    return sum(entry.lstat().st_size for entry in path.rglob("*") if not entry.is_dir() or entry.is_symlink())


def _beside(path: Path) -> Path:
    return path.with_name(f".{_short(path.name)}.{secrets.token_hex(8)}.tmp")


def _short(name: str) -> str:
    return os.fsencode(name)[:_LONGEST].decode(errors="ignore")  # a name may hold any bytes
