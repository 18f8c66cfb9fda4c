"""What a request would run: recorded or not, the cost, and what this machine lacks for it."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from effbook.runs import cache, machine, records
from effbook.runs.code import Sources, here
from effbook.runs.context import CHECKPOINT
from effbook.runs.execute import work_folder
from effbook.runs.recipe import Cost, Recipe, Shared


@dataclass(frozen=True)
class PlannedRun:
    """One run: `state` is recorded, rechecked, stale, interrupted or to do; `lacks` is what this machine misses for it.

    `seconds` is what it takes after the runs before it: what they share is counted for the first of them, and not at
    all where it is in the cache. Where runs of its kind are recorded under the profile, it is what they took.
    """

    recipe: Recipe
    profile: str
    state: str
    cost: Cost
    seconds: float
    lacks: tuple[str, ...]

    @property
    def to_do(self) -> bool:
        """Whether `effbook run` would compute it."""
        return self.state in ("interrupted", "to do")


@dataclass(frozen=True)
class Plan:
    """The runs, and sums over those that are to do; GPU memory is the largest, as runs follow one another.

    `data_bytes` is what fetching their data would bring, but for the sets in `unknown`, of which no manifest tells it.
    """

    runs: tuple[PlannedRun, ...]
    data_bytes: int
    unknown: tuple[str, ...]

    @property
    def hours(self) -> float:
        """Estimated hours of the runs to do, one after the other."""
        return sum(run.seconds for run in self.runs if run.to_do) / 3600

    @property
    def gpu_bytes(self) -> int:
        """GPU memory of the largest run to do."""
        return max((run.cost.gpu_bytes for run in self.runs if run.to_do), default=0)

    @property
    def disk_bytes(self) -> int:
        """Disk space of all runs to do, and of the data that they'd fetch."""
        return sum(run.cost.disk_bytes for run in self.runs if run.to_do) + self.data_bytes


def plan(pairs: Sequence[tuple[Recipe, str]]) -> Plan:
    """The plan for several (recipe, profile), and for the runs that these depend on; nothing is run or fetched."""
    states: dict[tuple[Recipe, str], str] = {}
    sources = here()
    for recipe, profile in pairs:
        _settle(recipe, profile, states, sources, needed=False)
    runs, seen = [], set()
    known: dict[tuple[str, str], list[tuple[dict, float]]] = {}
    for (recipe, profile), state in states.items():
        cost = recipe.cost()
        seconds, lacks = cost.seconds, ()
        if state in ("interrupted", "to do"):
            lacks = tuple(machine.missing(recipe.needs()))
            shares = recipe.shares()
            if not (shares or recipe.depends()) and (taken := _recorded_seconds(recipe, profile, known)) is not None:
                seconds = taken
            for shared in shares:
                place = cache.place_of(shared.kind, shared.parts)
                seconds -= shared.seconds if place in seen or _is_kept(recipe, shared) else 0
                seen.add(place)
        runs.append(PlannedRun(recipe, profile, state, cost, max(seconds, 0.0), lacks))
    return Plan(tuple(runs), *_data([run.recipe for run in runs if run.to_do]))


def seconds_of(pairs: Sequence[tuple[Recipe, str]]) -> dict[tuple[Recipe, str], float]:
    """What each takes after those before it, together with the runs that it depends on: an estimate."""
    found, waiting, wanted = {}, 0.0, set(pairs)
    for run in plan(pairs).runs:  # what a run depends on comes before it
        waiting += run.seconds
        if (run.recipe, run.profile) in wanted:
            found[run.recipe, run.profile], waiting = waiting, 0.0
    return found


def _settle(
    recipe: Recipe, profile: str, states: dict[tuple[Recipe, str], str], sources: Sources, *, needed: bool
) -> None:
    """Note the state of a run after those of the runs that it depends on; `needed`: another one to do depends on it."""
    if (recipe, profile) in states and not needed:
        return
    record = records.find(recipe, profile)
    standing = records.standing(record, sources) if record is not None else None
    if record is not None and not (needed and standing == "stale"):
        if not needed:  # a record that another run only takes was not asked for
            states[recipe, profile] = {"measured": "recorded"}.get(standing, standing)
        return
    for other in recipe.depends():
        _settle(other, profile, states, sources, needed=True)
    states[recipe, profile] = "interrupted" if (work_folder(recipe, profile) / CHECKPOINT).exists() else "to do"


def _recorded_seconds(recipe: Recipe, profile: str, known: dict) -> float | None:
    """What the recorded runs most like this one took, by the median; None without any of its kind under the profile.

    Alike are those with the most fields in common, the seed aside. `known` keeps what was read.
    """
    place = (recipe.name, profile)
    if place not in known:
        files = sorted(records.path_of(recipe, profile).parent.glob(f"{recipe.name}-*.json"))
        kept = [records.read(path) for path in files if path.stem.rpartition("-")[0] == recipe.name]
        known[place] = [(record.recipe.fields, record.cost.wall_seconds) for record in kept]
    if not known[place]:
        return None
    own = {name: value for name, value in recipe.fields.items() if name != "seed"}
    common = [sum(fields.get(name) == value for name, value in own.items()) for fields, _ in known[place]]
    most = max(common)
    return statistics.median(s for (_, s), count in zip(known[place], common, strict=True) if count == most)


def _is_kept(recipe: Recipe, shared: Shared) -> bool:
    stamp = cache.stamp_of(cache.place_of(shared.kind, shared.parts))
    return stamp is not None and cache.holds(stamp, recipe, None)


def _data(recipes: list[Recipe]) -> tuple[int, tuple[str, ...]]:
    """Bytes of the data sets that are not in the cache, and the names of those whose bytes are unknown."""
    names = sorted({name for recipe in recipes for name in recipe.datasets()})
    if not names:
        return 0, ()
    from effbook import data

    sizes = {name: data.manifest(name).size_bytes for name in names if not data.is_cached(name)}
    unknown = tuple(name for name, size in sizes.items() if size is None)
    return sum(size for size in sizes.values() if size is not None), unknown
