"""Locks on places in folders of records and results: two processes never compute or write the same thing twice."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from effbook.files import placed
from effbook.runs.progress import Display


@contextmanager
def holding(place: Path, display: Display) -> Iterator[None]:
    """Hold the lock of a result or a record at a place; whoever dies while holding it releases it."""
    locks_folder(place.parent)
    lock = FileLock(lock_path(place))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        display.say(f"another process computes {place.stem}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def lock_path(place: Path) -> Path:
    """The lock of a result or a record at a place."""
    return place.parent / ".locks" / f"{place.stem}.lock"


def locks_folder(folder: Path) -> Path:
    """The folder of locks in a folder of records or results; git passes over it."""
    locks = folder / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    if not (locks / ".gitignore").exists():
        with FileLock(locks / ".gitignore.lock"), placed(locks / ".gitignore", alone=True) as beside:
            beside.write_text("*\n")
    return locks
