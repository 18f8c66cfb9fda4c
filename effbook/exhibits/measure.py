"""What our records say about an exhibit: one cell for each measured quantity, over its seeds."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from effbook.exhibits.look import Look, seeded
from effbook.exhibits.register import exhibit, recipe_of, runs_of, unit_of
from effbook.exhibits.schema import Column, Exhibit, Row
from effbook.runs.profiles import check_profile
from effbook.runs.recipe import Recipe
from effbook.runs.records import Record, Standing
from effbook.runs.summary import summarise

State = Literal["measured", "partial", "not run", "no value", "no run", "none"]
NETWORKS = ("model", "encoder", "student", "architecture")  # fields that name a row's network


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
    standing: Standing = "measured"  # the worst of the records behind it
    rechecked: tuple[str, ...] = ()  # for each recheck that attests such a record: the commit of its code, and the day
    exact: bool = False  # arithmetic: no noise
    note: str = ""

    @property
    def stale(self) -> bool:
        """Whether a record behind it was made by other code, and nothing attests its numbers."""
        return self.standing == "stale"

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


def measured(what: str | Exhibit, profile: str, look: Look | None = None) -> Table:
    """Every cell of an exhibit as our records have it under `profile`. Nothing is run."""
    check_profile(profile)
    look = look or Look()
    found = exhibit(what) if isinstance(what, str) else what
    known = look.tables.get((found.id, profile))
    if known is None or known.exhibit is not found:
        cells = {(row.id, c.id): _cell(found, row, c, profile, look) for row in found.rows for c in found.columns}
        known = look.tables[found.id, profile] = Table(exhibit=found, profile=profile, cells=cells)
    return known


def _cell(found: Exhibit, row: Row, column: Column, profile: str, look: Look) -> Measured:
    scale = "paper" if column.arithmetic else profile
    known: dict[str, Any] = {"row": row.id, "column": column.id, "profile": scale, "exact": column.arithmetic}
    recipe = recipe_of(found, row, column)
    if recipe is None:
        return Measured(state="none", note=found.missing(row), **known)
    runs = runs_of(recipe, scale)
    if not runs:
        return Measured(state="no run", note=f"{recipe.name} has no {scale} run for this cell", **known)
    kept = look.records(runs, scale)
    values, behind = _values(kept, column.metric), list(kept.values())
    if (unit := unit_of(column)) is not None:
        units = look.records(runs_of(unit, scale), scale)
        behind += units.values()
        divisors = _values(units, column.metric)
        values = {seed: value / divisors[seed] for seed, value in values.items() if divisors.get(seed)}
    known |= {
        "planned": len(runs),
        "draws": {seed: draw for seed, draw in _draws(runs, kept).items() if draw != seed},
        "keys": tuple(dict.fromkeys(record.key for record in behind)),
        "paths": tuple(dict.fromkeys(f"{scale}/{r.recipe.system}/{r.recipe.name}-{r.key}.json" for r in behind)),
        **_standing(behind, look),
    }
    if unit is not None and kept and not values:
        return Measured(state="not run", note="the run that gives the unit is not recorded", **known)
    if kept and not values:
        note = next((r.notes[column.metric] for r in kept.values() if column.metric in r.notes), "")
        return Measured(state="no value", note=note or f"the run gives no {column.metric}", **known)
    state: State = "not run" if not values else "measured" if len(values) >= len(runs) else "partial"
    return Measured(state=state, by_seed={seed: v * column.scale for seed, v in values.items()}, **known)


def _standing(behind: list[Record], look: Look) -> dict[str, Any]:
    """The worst standing of these records, and where they are rechecked, by which rechecks."""
    standings = [look.standing(record) for record in behind]
    worst = next((one for one in ("stale", "rechecked") if one in standings), "measured")
    attested = [look.rechecked(r) for r, one in zip(behind, standings, strict=True) if one == "rechecked"]
    return {"standing": worst, "rechecked": tuple(sorted(set(attested)))}


def _draws(runs: tuple[Recipe, ...], kept: dict[int, Record]) -> dict[int, int]:
    """Which independent draw each seed that has a record belongs to."""
    return {seed: seeded(runs[0], seed).group() for seed in kept}


def _values(kept: dict[int, Record], metric: str | None) -> dict[int, float]:
    """The metric by seed, where a record has it."""
    return {seed: r.metrics[metric] for seed, r in kept.items() if r.metrics.get(metric) is not None}


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


def stand_in(found: Exhibit, row: Row, profile: str) -> str:
    """What runs in a row in place of the dissertation's network, such as "smollm2"; "" where it is the same or none."""
    for column in found.columns:
        recipe = None if column.arithmetic else recipe_of(found, row, column)
        for run in runs_of(recipe, profile)[:1] if recipe is not None else ():
            changed = [str(run.fields[name]) for name in NETWORKS if run.fields.get(name) != recipe.fields.get(name)]
            return ", ".join(changed)
    return ""


def _short(value: object) -> str:
    return "all" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
