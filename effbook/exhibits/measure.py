"""What our records say about an exhibit: one cell for each measured quantity, over its seeds."""

import dataclasses
import functools
import math
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, Literal, get_args

from effbook.exhibits.register import exhibit, recipe_of, recipes_of_exhibit, runs_of, unit_of
from effbook.exhibits.schema import Column, Exhibit, Row
from effbook.runs import records
from effbook.runs.code import Sources
from effbook.runs.profiles import check_profile
from effbook.runs.recipe import Recipe
from effbook.runs.records import Record
from effbook.runs.summary import summarise

State = Literal["measured", "partial", "not run", "no value", "no run", "none"]
ExhibitState = Literal["measured", "partly", "stale", "not run", "no run", "waiting", "drawing"]
STATES: tuple[ExhibitState, ...] = get_args(ExhibitState)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One cell: the values by seed in the column's unit, and where they come from.

    `draws` says which independent draw a seed belongs to, where several share one; mean and interval are over draws,
    each the mean of its seeds.

    States: `measured`; `partial`, when some seeds lack a record; `not run`; `no value`, when the runs could not have
    the metric (`note` says why); `no run`, when the profile has none; `none`, when no recipe measures the cell.
    `profile` is the scale that the numbers are of: parameter counts are arithmetic at paper scale under any profile.
    """

    row: str
    column: str
    profile: str
    state: State
    by_seed: dict[int, float] = field(default_factory=dict)
    draws: dict[int, int] = field(default_factory=dict)
    planned: int = 0
    keys: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()  # of the records, below the records' folder
    stale: bool = False
    exact: bool = False  # arithmetic: no noise
    note: str = ""

    @property
    def by_draw(self) -> dict[int, float]:
        """The mean of each independent draw; without `draws` each seed is one."""
        return mean_by(self.by_seed, self.draws)

    @property
    def n(self) -> int:
        """How many independent draws gave a value."""
        return len(self.by_draw)

    @property
    def value(self) -> float | None:
        """The mean over draws."""
        return summarise(list(self.by_draw.values())).mean if self.by_seed else None

    @property
    def half_width(self) -> float | None:
        """Half the 95 % t-interval of the mean; None for fewer than two draws."""
        return summarise(list(self.by_draw.values())).half_width if self.by_seed else None


def mean_by(by_seed: dict[int, float], draws: dict[int, int]) -> dict[int, float]:
    """The mean over the seeds of each draw, in the order of the seeds; a seed that `draws` lacks is a draw of its own.

    Three runs on one set of images tell little more than one about the next set: only draws are independent.
    """
    together: dict[int, list[float]] = {}
    for seed, value in by_seed.items():
        together.setdefault(draws.get(seed, seed), []).append(value)
    return {draw: values[0] if len(values) == 1 else statistics.fmean(values) for draw, values in together.items()}


@dataclass(frozen=True, kw_only=True)
class Table:
    """An exhibit as measured under a profile."""

    exhibit: Exhibit
    profile: str
    cells: dict[tuple[str, str], Measured]

    def cell(self, row: str, column: str) -> Measured:
        """The cell of a row and a column, by their ids."""
        return self.cells[row, column]

    def with_values(self) -> Iterator[tuple[Row, Column, Measured]]:
        """The cells that have a value, in the table's order."""
        for row in self.exhibit.rows:
            for column in self.exhibit.columns:
                cell = self.cells[row.id, column.id]
                if cell.value is not None:
                    yield row, column, cell


_looked: dict[Any, Any] | None = None  # inside `looking`: records by run, and which of them are stale


@contextmanager
def looking() -> Iterator[None]:
    """Inside, each record and each source file is looked at once: for lists, which ask for the same ones often."""
    global _looked
    before, _looked = _looked, {} if _looked is None else _looked
    try:
        _looked.setdefault("sources", Sources())
        yield
    finally:
        _looked = before


@looking()
def measured(what: str | Exhibit, profile: str) -> Table:
    """Every cell of an exhibit as our records have it under `profile`. Nothing is run."""
    check_profile(profile)
    found = exhibit(what) if isinstance(what, str) else what
    cells = {}
    for row in found.rows:
        for column in found.columns:
            cells[row.id, column.id] = _cell(found, row, column, profile)
    return Table(exhibit=found, profile=profile, cells=cells)


def _cell(found: Exhibit, row: Row, column: Column, profile: str) -> Measured:
    scale = "paper" if column.arithmetic else profile
    known: dict[str, Any] = {"row": row.id, "column": column.id, "profile": scale, "exact": column.arithmetic}
    recipe = recipe_of(found, row, column)
    if recipe is None:
        return Measured(state="none", note=found.missing(row), **known)
    runs = runs_of(recipe, scale)
    if not runs:
        return Measured(state="no run", note=f"{recipe.name} has no {scale} run for this cell", **known)
    kept = _records_of(runs, scale)
    values, behind = _values(kept, column.metric), list(kept.values())
    if (unit := unit_of(column)) is not None:
        units = _records_of(runs_of(unit, scale), scale)
        behind += units.values()
        divisors = _values(units, column.metric)
        values = {seed: value / divisors[seed] for seed, value in values.items() if divisors.get(seed)}
    known |= {
        "planned": len(runs),
        "draws": {seed: draw for seed, draw in _draws(runs, kept).items() if draw != seed},
        "keys": tuple(dict.fromkeys(record.key for record in behind)),
        "paths": tuple(dict.fromkeys(f"{scale}/{r.recipe.system}/{r.recipe.name}-{r.key}.json" for r in behind)),
        "stale": any(stale(record) for record in behind),
    }
    if unit is not None and kept and not values:
        return Measured(state="not run", note="the run that gives the unit is not recorded", **known)
    if kept and not values:
        note = next((r.notes[column.metric] for r in kept.values() if column.metric in r.notes), "")
        return Measured(state="no value", note=note or f"the run gives no {column.metric}", **known)
    state: State = "not run" if not values else "measured" if len(values) >= len(runs) else "partial"
    return Measured(state=state, by_seed={seed: v * column.scale for seed, v in values.items()}, **known)


def _draws(runs: tuple[Recipe, ...], kept: dict[int, Record]) -> dict[int, int]:
    """Which independent draw each seed that has a record belongs to."""
    return {seed: _seeded(runs[0], seed).group() for seed in kept}


def _values(kept: dict[int, Record], metric: str | None) -> dict[int, float]:
    """The metric by seed, where a record has it."""
    return {seed: r.metrics[metric] for seed, r in kept.items() if r.metrics.get(metric) is not None}


def _records_of(runs: tuple[Recipe, ...], profile: str) -> dict[int, Record]:
    """The records of the planned seeds, and of the seeds that someone ran beyond them, by seed."""
    if _looked is not None and (runs, profile) in _looked:
        return _looked[runs, profile]
    kept = {run.seed: record for run in runs if (record := _find(run, profile)) is not None}
    if not runs:
        return kept
    beyond = max(run.seed for run in runs) + 1
    while (record := _find(_seeded(runs[0], beyond), profile)) is not None:
        kept[beyond] = record
        beyond += 1
    if _looked is not None:
        _looked[runs, profile] = kept
    return kept


@functools.lru_cache(maxsize=8192)
def _seeded(run: Recipe, seed: int) -> Recipe:
    return dataclasses.replace(run, seed=seed)


def _find(run: Recipe, profile: str) -> Record | None:
    if _looked is not None and run.name not in _recorded(profile, run.system):
        return None  # without working out the run's key
    path = records.path_of(run, profile)
    return _read(path, path.stat().st_mtime_ns) if path.exists() else None


def _recorded(profile: str, system: str) -> set[str]:
    """Names of the recipes of which there is any record."""
    if ("names", profile, system) not in _looked:
        files = (records.records_folder() / profile / system).glob("*.json")
        _looked["names", profile, system] = {file.stem.rpartition("-")[0] for file in files}
    return _looked["names", profile, system]


@functools.lru_cache(maxsize=4096)
def _read(path: Path, _mtime_ns: int) -> Record:
    return records.read(path)


def stale(record: Record) -> bool:
    """Whether the record was made by other code than is here now."""
    if _looked is None:
        return records.is_stale(record)
    place = (record.profile, record.recipe.name, record.key)
    if place not in _looked:
        _looked[place] = records.is_stale(record, _looked["sources"])
    return _looked[place]


@looking()
def summary(found: Exhibit, profile: str) -> dict[str, int]:
    """How many runs an exhibit has under a profile, how many are recorded, and how many of those are stale."""
    runs = recipes_of_exhibit(found, profile)
    kept = [record for run in runs if (record := _find(run, profile)) is not None]
    return {"runs": len(runs), "recorded": len(kept), "stale": sum(stale(record) for record in kept)}


@looking()
def state_of(found: Exhibit, profile: str) -> ExhibitState:
    """One word for an exhibit under a profile.

    `waiting`: for something that is not built (`waits_for`), though its arithmetic may be recorded. `drawing`: nothing
    of it is to be measured. `no run`: its recipes have no run under the profile. `not run`: none of its runs is
    recorded. `partly`: some are, or a row of it waits. `stale`: all are, some of them by other code. `measured`: all
    are, by the code that is here; also where all that it has is arithmetic.
    """
    if found.waits_for:
        return "waiting"
    made = [
        (run, column.arithmetic)
        for row in found.rows
        for column in found.columns
        if (recipe := recipe_of(found, row, column)) is not None
        for run in (recipe, unit_of(column))
        if run is not None
    ]
    waiting = any(row.waits_for and row.origin != "quoted" and not (row.recipe or row.count) for row in found.rows)
    if not made:
        return "waiting" if waiting else "drawing"
    counts = {run for recipe, arithmetic in made if arithmetic for run in runs_of(recipe, "paper")}
    runs = {run for recipe, arithmetic in made if not arithmetic for run in runs_of(recipe, profile)}
    if not runs and not all(arithmetic for _, arithmetic in made):
        return "no run"
    ran = [_find(run, profile) for run in runs]
    kept = ran + [_find(count, "paper") for count in counts]
    if not any(ran or kept):
        return "not run"
    if waiting or not all(kept):
        return "partly"
    return "stale" if any(map(stale, kept)) else "measured"


@looking()
def counted(found: Exhibit) -> bool:
    """Whether all that is arithmetic in an exhibit is recorded, and there is some."""
    made = [recipe_of(found, row, column) for row in found.rows for column in found.columns if column.arithmetic]
    runs = {run for recipe in made if recipe is not None for run in runs_of(recipe, "paper")}
    return bool(runs) and all(_find(run, "paper") for run in runs)


def ran_as(found: Exhibit, profile: str) -> dict[str, list[str]]:
    """What the profile changes in the exhibit's recipes: for each field "paper value → value that runs", once each."""
    changes: dict[str, dict[str, None]] = {}
    for row in found.rows:
        for column in found.columns:
            recipe = None if column.arithmetic else recipe_of(found, row, column)
            runs = runs_of(recipe, profile) if recipe is not None else ()
            for name, new in runs[0].fields.items() if runs else ():
                if name != "seed" and (old := recipe.fields[name]) != new:
                    changes.setdefault(name, {})[f"{_short(old)} → {_short(new)}"] = None
    return {name: list(each) for name, each in changes.items()}


def _short(value: object) -> str:
    return "all" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def in_full(value: float) -> str:
    """A value of arithmetic: a whole number to the digit with commas, any other to four significant digits."""
    value = round(value, 9)  # without what binary fractions leave behind
    if value == round(value):
        return f"{round(value):,}"
    return f"{value:,.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"


def as_printed(count: float, printed: str, mega: int = 1_000_000) -> str:
    """A value in the unit and with the digits of a printed one: 49152 beside "47K", in a table of 2^20, is "47K"."""
    suffix = printed[-1] if printed[-1] in "KM" else ""
    digits = printed.removesuffix(suffix)
    places = len(digits.partition(".")[2])
    unit = {"": Decimal(1), "K": Decimal(mega) / 1000, "M": Decimal(mega)}[suffix]
    rounded = (Decimal(str(count)) / unit).quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_UP)
    return (f"{rounded:,f}" if "," in digits else f"{rounded:f}") + suffix


def matches(row: Row, column: Column, count: float) -> bool:
    """Whether a value of ours, printed as the table prints, is the text that the table has."""
    printed = row.values.get(column.id)
    return printed is not None and as_printed(count, printed, column.mega) == printed
