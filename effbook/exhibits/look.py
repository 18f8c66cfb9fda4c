"""What a listing has looked at: each record, its standing and each source file, once for all who ask."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from effbook.errors import EffbookError
from effbook.runs import records
from effbook.runs.attest import Attestation
from effbook.runs.code import Sources, here
from effbook.runs.recipe import Recipe
from effbook.runs.records import Record, Standing


class Look:
    """One look at the records and at the code: what changes after it began is seen by the next one.

    Whoever shows several exhibits passes one look through all calls; without one, each call takes its own.
    """

    def __init__(self, sources: Sources | None = None, *, past_unreadable: bool = False) -> None:
        """With `past_unreadable`, a record that cannot be read counts as none, and `unreadable` says why."""
        self.past_unreadable, self.unreadable = past_unreadable, list[EffbookError]()
        self.sources = sources or here()
        self.tables: dict[tuple[str, str], Any] = {}  # by exhibit and profile, as `measured` made them
        self._names: dict[tuple[str, str], set[str]] = {}
        self._records: dict[tuple[Recipe, str], Record | None] = {}
        self._standings: dict[tuple[str, str, str], tuple[Standing, Attestation | None]] = {}

    def record(self, run: Recipe, profile: str) -> Record | None:
        """The record of a run under a profile; None if there is none, EffbookError if it cannot be read."""
        if run.name not in self._recorded(profile, run.system):
            return None  # without working out the run's key
        if (run, profile) not in self._records:
            path = records.path_of(run, profile)
            self._records[run, profile] = self._readable(path) if path.exists() else None
        return self._records[run, profile]

    def _readable(self, path: Path) -> Record | None:
        try:
            return _read(path, path.stat().st_mtime_ns)
        except EffbookError as error:
            if not self.past_unreadable:
                raise
            self.unreadable.append(error)
            return None

    def records(self, runs: tuple[Recipe, ...], profile: str) -> dict[int, Record]:
        """The records of the planned seeds, and of the seeds that someone ran beyond them, by seed."""
        kept = {run.seed: record for run in runs if (record := self.record(run, profile)) is not None}
        if not runs:
            return kept
        beyond = max(run.seed for run in runs) + 1
        while (record := self.record(seeded(runs[0], beyond), profile)) is not None:
            kept[beyond] = record
            beyond += 1
        return kept

    def standing(self, record: Record) -> Standing:
        """Whether the code that is here made the record, or a recheck attests its numbers, or neither."""
        return self._judged(record)[0]

    def rechecked(self, record: Record) -> str:
        """For a record that is rechecked: the commit of the code that made it, and the day of the recheck."""
        _, found = self._judged(record)
        return f"{found.commit[:8]}, {found.created[:10]}" if found is not None else ""

    def _judged(self, record: Record) -> tuple[Standing, Attestation | None]:
        place = (record.profile, record.recipe.name, record.key)
        if place not in self._standings:
            self._standings[place] = records.standing_and_attestation(record, self.sources)
        return self._standings[place]

    def _recorded(self, profile: str, system: str) -> set[str]:
        """Names of the recipes of which there is any record."""
        if (profile, system) not in self._names:
            files = (records.records_folder() / profile / system).glob("*.json")
            self._names[profile, system] = {file.stem.rpartition("-")[0] for file in files}
        return self._names[profile, system]


@functools.lru_cache(maxsize=8192)
def seeded(run: Recipe, seed: int) -> Recipe:
    """The same run with another seed."""
    return dataclasses.replace(run, seed=seed)


@functools.lru_cache(maxsize=4096)
def _read(path: Path, _mtime_ns: int) -> Record:
    """Read and validated once for each state of its file."""
    return records.read(path)
