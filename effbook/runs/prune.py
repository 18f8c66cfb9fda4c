"""What lies in the caches beside records: kept results, and what killed runs and downloads left; and taking it away."""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import psutil
from filelock import Timeout

from effbook.errors import EffbookError
from effbook.files import leftovers_in, remove, size_bytes
from effbook.runs import cache, locks, machine, records
from effbook.runs.code import Sources, here
from effbook.runs.context import CHECKPOINT
from effbook.runs.profiles import PROFILES
from effbook.runs.recipe import make

State = Literal["current", "rechecked", "stale", "elsewhere", "unfinished", "in use"]

_WORK = re.compile(rf"({'|'.join(PROFILES)})-(.+-[0-9a-f]{{12}})(-[0-9a-f]{{8}})?")
_RECHECK = re.compile(r"recheck-(\d+)")
_TEMPORARY = re.compile(r"\.(.+)\.[^.]+\.tmp")
_SURELY_DEAD_S = 3600.0  # since when nothing was written, where no lock tells whether a process is at work


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing in a cache. Its state tells what `prune` does with it.

    current, rechecked: a kept result that a run would take, by the code that is here or as a recheck attests.
    stale: of other code or packages; elsewhere: of another device. unfinished: left by a process that was killed.
    """

    what: str
    path: Path
    state: State
    recipe: str = ""
    created: str = ""
    lock: Path | None = None  # held by who is at work on it

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return size_bytes(self.path)


def listed(*, data: Path, earlier: Sequence[Path] = ()) -> list[Item]:
    """All that is there: kept results, interrupted runs, and what was left of records and, in `data`, of downloads.

    `earlier` are folders in which earlier versions kept results.
    """
    sources = here()
    found = [*_results(sources), *_work(), *_left_of_records(), *_left_of_data(data)]
    found += [Item(what="results of an earlier version", path=path, state="stale") for path in earlier if path.exists()]
    return found


def prune(items: Sequence[Item], *, everything: bool = False) -> tuple[list[tuple[Item, int]], list[Item]]:
    """Remove what is stale or unfinished, with `everything` also the results that runs would take.

    Returns what was removed, with its bytes, and what was left because a process works on it.
    """
    removed, left = [], []
    for item in items:
        if not everything and item.state in ("current", "rechecked", "elsewhere"):
            continue
        size = item.size_bytes
        try:
            if item.state == "in use":
                raise Timeout(str(item.lock))
            if item.lock is None or not item.lock.parent.is_dir():
                remove(item.path)
            else:
                with locks.at(item.lock, timeout=0):
                    remove(item.path)
        except Timeout:
            left.append(item)
            continue
        removed.append((item, size))
    return removed, left


def _results(sources: Sources) -> Iterator[Item]:
    folder = cache.results_folder()
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_dir() and not path.name.startswith("."):
            stamp, lock = cache.stamp_of(path), locks.lock_path(path)
            if stamp is None:
                yield _unfinished("a result without its stamp", path, lock)
            else:
                state = _state_of(stamp, path, sources)
                recipe, created = stamp.recipe, stamp.created
                yield Item(what=path.name, path=path, state=state, recipe=recipe, created=created, lock=lock)
    for path in leftovers_in(folder):
        yield _unfinished("a result", path, locks.lock_path(folder / _TEMPORARY.fullmatch(path.name)[1]))


def _state_of(stamp: cache.Stamp, path: Path, sources: Sources) -> State:
    if stamp.device != machine.device():
        return "elsewhere"
    try:
        of = make(stamp.recipe, **stamp.fields)
        standing = cache.standing(stamp, of.modules(), sources)
    except EffbookError:  # its recipe is gone or has other fields
        return "stale"
    if standing == "stale" or path != cache.place_of(stamp.kind, stamp.parts):
        return "stale"
    return "current" if standing == "measured" else "rechecked"


def _work() -> Iterator[Item]:
    """Work folders of interrupted runs, and the checkouts of rechecks that were killed."""
    root = cache.work_root()
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        if (match := _RECHECK.fullmatch(path.name)) and not psutil.pid_exists(int(match[1])):
            yield Item(what="the checkouts of a recheck", path=path, state="unfinished")
        if match := _WORK.fullmatch(path.name):
            what = "an interrupted run" if (path / CHECKPOINT).exists() else "the work folder of a run"
            lock = None if match[3] else locks.lock_path(path)  # earlier versions added their record's place
            yield _unfinished(what, path, lock, recipe=f"{match[2]} ({match[1]})")


def _left_of_records() -> Iterator[Item]:
    """Temporary files, and artifacts that no record names."""
    root = machine.records_folder()
    if not root.is_dir():
        return
    folders = [path for profile in PROFILES for path in sorted(root.glob(f"{profile}/*/*/")) if path.name != ".locks"]
    for folder in folders:
        record = folder.with_name(f"{folder.name}.json")
        for path in records.unnamed_artifacts(record):
            yield _unfinished("an artifact of no record", path, locks.lock_path(record), recipe=folder.name)
    for path in sorted(root.rglob(".*.tmp")):
        match = _TEMPORARY.fullmatch(path.name)
        if match and path.parent not in folders:
            own = path.parent.parent.name in PROFILES  # beside records: the name tells whose it was
            yield _unfinished("a file of records", path, locks.lock_path(path.parent / match[1]) if own else None)


def _left_of_data(folder: Path) -> Iterator[Item]:
    """Downloads that were killed, of all versions, and what was being made of data sets."""
    for path in sorted(folder.glob(".incoming-*")) if folder.is_dir() else ():
        name = path.name.removeprefix(".incoming-").rpartition(".")[0]
        yield _unfinished("a download", path, folder / ".locks" / f"{name}.lock")
    for path in leftovers_in(folder):
        yield _unfinished("a download", path, folder / ".locks" / f"{_TEMPORARY.fullmatch(path.name)[1]}.lock")
    for inside in sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ():
        for path in leftovers_in(inside):
            yield _unfinished(f"something made of {inside.name}", path, None)


def _unfinished(what: str, path: Path, lock: Path | None, *, recipe: str = "") -> Item:
    changed = path.lstat().st_mtime
    created = datetime.fromtimestamp(changed, UTC).isoformat(timespec="milliseconds")
    busy = time.time() - changed < _SURELY_DEAD_S if lock is None else _is_held(lock)
    state = "in use" if busy else "unfinished"
    return Item(what=what, path=path, state=state, recipe=recipe, created=created, lock=lock)


def _is_held(lock: Path) -> bool:
    if not lock.parent.is_dir():
        return False
    try:
        with locks.at(lock, timeout=0):
            return False
    except Timeout:
        return True
