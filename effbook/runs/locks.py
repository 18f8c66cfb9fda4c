"""Locks on places in folders of records and results: two processes never compute or write the same thing twice.

On a disk of this machine the system locks a file, and releases it when its holder dies, however it does. Whether such
a lock is seen by other machines that share a folder depends on the file system and how it is mounted, and no program
can ask. There a lock is a lease: a file that only one machine can create, and that its holder renews. Where a holder
falls silent for LEASE_S seconds another takes over; one on the same machine that is dead is passed over at once.
"""

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import BaseFileLock, FileLock, SoftFileLease, Timeout

from effbook.files import placed
from effbook.runs.progress import Display

LEASE_S = 90.0  # the same in all processes, or they would not agree on who is silent
_NETWORK = re.compile(
    r"(nfs\d?|cifs|smb\w*|lustre|beegfs\w*|gpfs|ceph|panfs|wekafs|pvfs2|orangefs|afs|ocfs2|gfs2|9p|virtiofs|vboxsf|fuse\..+)"
)


@contextmanager
def holding(place: Path, display: Display) -> Iterator[None]:
    """Hold the lock of a result, a work folder or a record at a place; a holder that dies loses it."""
    locks_folder(place.parent)
    lock = at(lock_path(place))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        display.say(f"another process computes {place.stem}; waiting for it")
        lock.acquire(timeout=-1)
    try:
        yield
    finally:
        if getattr(lock, "compromise", None):
            display.say(f"the lock of {place.stem} was lost for a while: another machine may have computed it, too")
        lock.release()


def at(path: Path, timeout: float = -1) -> BaseFileLock:
    """The lock at a path that `lock_path` gave, not yet held; filelock's Timeout where it is held for too long."""
    if path.suffix == ".lease":
        return SoftFileLease(path, timeout=timeout, lease_duration=LEASE_S)
    return FileLock(path, timeout=timeout)


def lock_path(place: Path) -> Path:
    """The lock of a result, a work folder or a record at a place."""
    return place.parent / ".locks" / f"{place.stem}{ending(place.parent)}"


def ending(folder: Path) -> str:
    """How the names of locks in a folder end: `.lease` on a network's file system, else `.lock`."""
    return ".lease" if on_network(folder) else ".lock"


@functools.lru_cache(maxsize=64)
def on_network(folder: Path) -> bool:
    """Whether a folder, there or not, lies on a file system that other machines may share."""
    resolved, best, kind = folder.resolve(), -1, ""
    for mounted in psutil.disk_partitions(all=True):
        if resolved.is_relative_to(mounted.mountpoint) and len(mounted.mountpoint) >= best:
            best, kind = len(mounted.mountpoint), mounted.fstype
    return _NETWORK.fullmatch(kind) is not None


def locks_folder(folder: Path) -> Path:
    """The folder of locks in a folder of records or results; git passes over it."""
    locks = folder / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    if not (locks / ".gitignore").exists():
        with at(locks / f".gitignore{ending(folder)}"), placed(locks / ".gitignore", alone=True) as beside:
            beside.write_text("*\n")
    return locks
