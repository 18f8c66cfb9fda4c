"""Intermediate results that runs share, such as trained scenes: kept under what they depend on, taken while they hold.

A result's key holds the parts that its maker names, the device and the package versions. The code that made it is
stored beside it: a result of other code is made anew in its place. So is one from before `--fresh` was asked for.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import platformdirs
from pydantic import BaseModel, ConfigDict, ValidationError

from effbook.errors import EffbookError
from effbook.files import placed, write_atomically
from effbook.places import folder_named
from effbook.runs import attest, machine
from effbook.runs.code import DEVICES, Device, Sources, here

STAMP = ".result.json"


class Coded(Protocol):
    """What a result needs of the recipe that it belongs to."""

    name: str
    fields: dict[str, Any]

    def modules(self) -> tuple[str, ...]:
        """Modules whose import closure is the code."""


class Taken(BaseModel):
    """What a run took and did not make itself (a kept result, or another run's record), and where that came from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str  # of the result, or "record"
    key: str
    fingerprint: str
    commit: str | None
    dirty: bool | None
    created: str


class Stamp(BaseModel):
    """What lies beside a kept result."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    key: str
    parts: dict[str, Any]
    recipe: str  # whose modules are the code
    fields: dict[str, Any]
    fingerprint: str
    accelerator: Device
    commit: str | None
    dirty: bool | None
    packages: dict[str, str]
    device: str
    threads: int
    seconds: float
    created: str
    taken: tuple[Taken, ...] = ()  # what its making took in turn

    def as_taken(self) -> Taken:
        """This result, as the record of a run that took it names it."""
        return Taken(**{name: getattr(self, name) for name in Taken.model_fields})


def work_root() -> Path:
    """$EFFBOOK_WORK, or a folder in the user's cache: for work folders and kept results."""
    return folder_named("EFFBOOK_WORK", platformdirs.user_cache_path("effbook") / "work")


def results_folder() -> Path:
    """Where results are kept."""
    return work_root() / "results"


def place_of(kind: str, parts: dict[str, Any]) -> Path:
    """The folder of a result of this machine and its packages, whether it is there or not."""
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", kind):
        raise ValueError(f"a kind of result is named such as trained-scene, not {kind!r}")
    depends = {"parts": parts, "device": machine.device(), "packages": machine.packages()}
    canonical = json.dumps(depends, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return results_folder() / f"{kind}-{hashlib.sha256(canonical.encode()).hexdigest()[:16]}"


def stamp_of(place: Path) -> Stamp | None:
    """What is told of the result at a place; None where there is none, or none that can be read."""
    try:
        return Stamp.model_validate_json((place / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


def holds(stamp: Stamp, of: Coded, fresh_since: datetime | None) -> bool:
    """Whether a kept result may be taken: it is not older than `fresh_since`, and its code holds as a record's does."""
    return is_fresh(stamp.created, fresh_since) and standing(stamp, of.modules()) != "stale"


def standing(
    stamp: Stamp, modules: tuple[str, ...], sources: Sources | None = None
) -> Literal["measured", "rechecked", "stale"]:
    """Whether the code that is here made a result, or a recheck of its recipe attests it, or neither."""
    now = (sources or here()).fingerprint(modules, stamp.accelerator)
    if now == stamp.fingerprint:
        return "measured"
    found = attest.find(machine.records_folder(), stamp.recipe, stamp.fields, stamp.fingerprint, now)
    return "rechecked" if found is not None and found.agrees else "stale"


def now() -> str:
    """The time, as records and stamps have it: to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def is_fresh(created: str, fresh_since: datetime | None) -> bool:
    """Whether something was made at or after that moment, to the millisecond; True where none is given."""
    if fresh_since is None:
        return True
    return datetime.fromisoformat(created) >= fresh_since.replace(microsecond=fresh_since.microsecond // 1000 * 1000)


def make_at(
    place: Path,
    kind: str,
    parts: dict[str, Any],
    of: Coded,
    make: Callable[[Path], tuple],
    device_used: Callable[[], Device],
) -> Stamp:
    """Have `make(folder)` fill a new folder and put it in place, whole or not at all; the caller holds the lock.

    `make` returns what it took of other results; `device_used` tells afterwards whose engines acted.
    """
    sources, start = here(), time.perf_counter()
    code = {device: sources.fingerprint(of.modules(), device) for device in DEVICES}
    commit, dirty = machine.commit()
    with placed(place, alone=True) as beside:
        beside.mkdir()
        taken = make(beside)
        if (beside / STAMP).exists():
            raise EffbookError(f"a result of {of.name} has a file named {STAMP}", "name it otherwise")
        stamp = Stamp(
            kind=kind,
            key=place.name.removeprefix(f"{kind}-"),
            parts=parts,
            recipe=of.name,
            fields=of.fields,
            fingerprint=code[device_used()],
            accelerator=device_used(),
            commit=commit,
            dirty=dirty,
            packages=machine.packages(),
            device=machine.device(),
            threads=machine.threads(),
            seconds=round(time.perf_counter() - start, 3),
            created=now(),
            taken=taken,
        )
        write_atomically(beside / STAMP, stamp.model_dump_json(indent=1) + "\n")
    return stamp
