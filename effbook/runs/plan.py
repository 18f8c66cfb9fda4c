"""What a request would run: recorded or not, the cost, and what this machine lacks for it."""

from collections.abc import Sequence
from dataclasses import dataclass

from effbook.runs import machine, records
from effbook.runs.context import CHECKPOINT
from effbook.runs.execute import work_folder
from effbook.runs.recipe import Cost, Recipe


@dataclass(frozen=True)
class PlannedRun:
    """One run: `state` is recorded, stale, interrupted or to do; `lacks` is what this machine is missing for it."""

    recipe: Recipe
    profile: str
    state: str
    cost: Cost
    lacks: tuple[str, ...]

    @property
    def to_do(self) -> bool:
        """Whether `effbook run` would compute it."""
        return self.state in ("interrupted", "to do")


@dataclass(frozen=True)
class Plan:
    """The runs, and sums over those that are to do; GPU memory is the largest, as runs follow one another."""

    runs: tuple[PlannedRun, ...]

    @property
    def hours(self) -> float:
        """Estimated hours of the runs to do, one after the other."""
        return sum(run.cost.seconds for run in self.runs if run.to_do) / 3600

    @property
    def gpu_bytes(self) -> int:
        """GPU memory of the largest run to do."""
        return max((run.cost.gpu_bytes for run in self.runs if run.to_do), default=0)

    @property
    def disk_bytes(self) -> int:
        """Disk space of all runs to do, and of the data that they'd fetch."""
        to_do = [run for run in self.runs if run.to_do]
        return sum(run.cost.disk_bytes for run in to_do)


def plan(pairs: Sequence[tuple[Recipe, str]]) -> Plan:
    """The plan for several (recipe, profile); nothing is run or fetched."""
    return Plan(tuple(_planned(recipe, profile) for recipe, profile in dict.fromkeys(pairs)))


def _planned(recipe: Recipe, profile: str) -> PlannedRun:
    record = records.find(recipe, profile)
    if record is not None:
        state = "stale" if records.is_stale(record) else "recorded"
        return PlannedRun(recipe, profile, state, recipe.cost(), ())
    state = "interrupted" if (work_folder(recipe, profile) / CHECKPOINT).exists() else "to do"
    return PlannedRun(recipe, profile, state, recipe.cost(), tuple(machine.missing(recipe.needs())))
