"""Attestations: what rechecks found about records of older code, one JSON line each in `rechecked.jsonl`.

A recheck compares a recipe run by the code that made its record with the same run by the code that is here. Its
outcome stands for the records of one recipe class and one fingerprint that are of the same kind as what was run.
"""

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from effbook.errors import EffbookError
from effbook.files import write_atomically
from effbook.runs import locks

FILE = "rechecked.jsonl"


class Attestation(BaseModel):
    """One comparison; `agrees` tells how it came out, and only where it did are records shown as rechecked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    recipe: str  # the name of the class
    kind: dict[str, Any]  # as `kind_of` has it
    old: str  # fingerprints
    new: str
    commit: str  # whose code has the old one
    agrees: bool
    largest: float | None = Field(allow_inf_nan=False)  # difference in any metric or series; None: they differ in form
    differing: tuple[str, ...] = ()  # names of the metrics and series that do
    compared: int  # numbers
    probe: dict[str, Any]  # fields that capped the runs; {}: whole
    keys: tuple[str, ...]  # of the records whose recipes were run
    tolerance: float  # relative; 0: to the bit
    here: str | None  # the commit of the code that has the new one
    dirty: bool | None
    device: str
    packages: dict[str, str]
    created: str


def kind_of(fields: dict[str, Any]) -> dict[str, Any]:
    """What decides which code acts in a run: words, switches, and which numbers are not given; not their values."""

    def plain(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return "number" if isinstance(value, int | float) and not isinstance(value, bool) else value

    return {name: plain(value) for name, value in sorted(fields.items()) if name != "seed"}


def read(folder: Path) -> tuple[Attestation, ...]:
    """Every attestation in the records' folder, the oldest first; EffbookError names a line that cannot be read."""
    return tuple(one for known in _known(folder).values() for one in known)


def find(folder: Path, name: str, fields: dict[str, Any], old: str, new: str) -> Attestation | None:
    """The outcome that tells about a record of that recipe, made by `old` code, under `new` code."""
    known = [one for one in _known(folder).get((name, old), ()) if one.new == new]
    kind = kind_of(fields) if known else None
    return next((one for one in known if one.kind == kind), None)


def _known(folder: Path) -> dict[tuple[str, str], list[Attestation]]:
    path = folder / FILE
    try:
        stat = path.stat()
    except FileNotFoundError:
        return {}
    return _parsed(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=8)
def _parsed(path: Path, _mtime_ns: int, _size: int) -> dict[tuple[str, str], list[Attestation]]:
    """By recipe and old fingerprint."""
    found: dict[tuple[str, str], list[Attestation]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            one = Attestation.model_validate_json(line)
        except ValidationError as error:
            why = error.errors()[0]["msg"]
            raise EffbookError(f"line {number} of {path} is not valid ({why})", "restore it from git") from None
        found.setdefault((one.recipe, one.old), []).append(one)
    return found


def write(folder: Path, outcomes: Iterable[Attestation]) -> None:
    """Add outcomes. One replaces what was said before of the same records, be it about code that is no longer here."""
    folder.mkdir(parents=True, exist_ok=True)
    with locks.at(locks.locks_folder(folder) / f"{FILE}{locks.ending(folder)}"):
        kept = {_about(one): one for one in read(folder)}
        for one in outcomes:
            kept.pop(_about(one), None)
            kept[_about(one)] = one
        lines = [json.dumps(one.model_dump(mode="json"), sort_keys=True, allow_nan=False) for one in kept.values()]
        write_atomically(folder / FILE, "".join(f"{line}\n" for line in lines))


def _about(one: Attestation) -> tuple[str, str, str]:
    return one.recipe, one.old, json.dumps(one.kind, sort_keys=True)
