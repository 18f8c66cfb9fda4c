"""Where scenes are read from and written to: what cannot work is refused in one sentence, before work starts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from effbook.errors import EffbookError
from effbook.files import placed


def check_place(path: Path, *, source: Path | None = None) -> None:
    """Raise EffbookError if no file can be written to `path`, or if it is the very file of `source`.

    That is so for a folder, for a name too long, and where the folder that should hold it is missing, is a file, or
    cannot be written to. A link to the source is the source, and so is another spelling of its path.
    """
    try:
        if path.is_dir():
            raise EffbookError(f"{path} is a folder", "name a file")
        if not path.parent.is_dir():
            there = path.parent.exists()
            raise EffbookError(
                f"the folder {path.parent} is {'a file' if there else 'not there'}",
                "name another place" if there else "make it first",
            )
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise EffbookError(f"the folder {path.parent} cannot be written to", "name another place")
        if source is not None and path.exists() and source.exists() and path.samefile(source):
            raise EffbookError(f"{path} is {source}, and would be overwritten", "name another file to write")
    except OSError as error:
        raise _unwritten(path, error) from None


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """A file to read. Raises EffbookError if it cannot be opened."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise EffbookError(f"{path} cannot be read ({error.strerror})", "name a file that is there") from None
    with file:
        yield file


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write beside `path`, put in its place when all went well and removed when not.

    Raises EffbookError where the place cannot be written to or the disk is full.
    """
    check_place(path)
    try:
        with placed(path) as beside, beside.open("xb") as file:  # with the mode that the user's mask gives
            yield file
    except OSError as error:
        raise _unwritten(path, error) from None


def _unwritten(path: Path, error: OSError) -> EffbookError:
    return EffbookError(f"{path} cannot be written ({error.strerror or error})", "free or name another place")
