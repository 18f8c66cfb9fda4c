"""Where effbook's folders are, as the environment names them, and whether they can be written to."""

import os
import shutil
import tempfile
from pathlib import Path

from effbook.errors import EffbookError, system_error


def folder_named(variable: str, default: Path) -> Path:
    """The folder that an environment variable names, absolute and with `~` followed; `default` where it is blank.

    The folder need not be there yet. EffbookError if it cannot be one: a file is there or above it, or the system
    refuses to look at it.
    """
    given = os.environ.get(variable, "")
    if not given.strip():
        return default
    folder, remedy = expanded(variable, given), f"set {variable} to a folder, or unset it for {default}"
    try:
        for place in (folder, *folder.parents):
            if place.is_dir():
                return folder
            if place.exists() or place.is_symlink():
                what = "a link that leads nowhere" if place.is_symlink() else "a file"
                raise EffbookError(f"{variable} names {folder}, but {place} is {what}", remedy)
    except OSError as error:
        why = error.strerror.lower()
        raise EffbookError(f"{variable} names {given}, which cannot be used ({why})", remedy) from None
    return folder


def expanded(variable: str, given: str) -> Path:
    """A path that an environment variable names, absolute and with `~` followed; EffbookError for a home of nobody."""
    try:
        return Path(given).expanduser().absolute()
    except RuntimeError:
        raise EffbookError(f"{variable} names {given}, a home that is not there", "correct it, or unset it") from None


def room(folder: Path) -> int:
    """Bytes that are free where a folder is or would be; EffbookError if it cannot be written to. Nothing is made."""
    try:
        there = next(place for place in (folder, *folder.parents) if place.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise EffbookError(
                f"{folder} cannot be written to", "give this user the right to it, or name another folder"
            )
        return shutil.disk_usage(there).free
    except OSError as error:
        raise system_error(error) from None


def ready(folder: Path) -> Path:
    """A folder that is there and can be written to, made where it is missing; EffbookError says why it cannot be.

    Asked before hours of work, whose result would have no place.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        error.filename = error.filename or str(folder)
        raise system_error(error) from None
