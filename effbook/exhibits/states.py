"""How far an exhibit is under a profile: one word, and the runs behind it."""

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from effbook.exhibits.look import Look
from effbook.exhibits.register import recipe_of, recipes_of_exhibit, runs_of, unit_of
from effbook.exhibits.schema import Exhibit

ExhibitState = Literal["measured", "rechecked", "partly", "stale", "not run", "no run", "waiting", "drawing"]
STATES: tuple[ExhibitState, ...] = get_args(ExhibitState)


class Progress(BaseModel):
    """How many runs an exhibit has, how many are recorded, how many of those are rechecked or stale, and its state.

    `rows` counts those that the dissertation ran and did not only count or quote, `rows_measured` those of them that
    have a measured value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    runs: int
    recorded: int
    rechecked: int
    stale: int
    state: ExhibitState
    rows: int = 0
    rows_measured: int = 0


def progress(found: Exhibit, profile: str, look: Look | None = None) -> Progress:
    """How far an exhibit is under a profile."""
    look = look or Look()
    runs = recipes_of_exhibit(found, profile)
    standings = [look.standing(record) for run in runs if (record := look.record(run, profile)) is not None]
    return Progress(
        runs=len(runs),
        recorded=len(standings),
        rechecked=standings.count("rechecked"),
        stale=standings.count("stale"),
        state=state_of(found, profile, look),
        rows=len(rows := rows_run(found, profile, look)),
        rows_measured=sum(rows.values()),
    )


def rows_run(found: Exhibit, profile: str, look: Look) -> dict[str, bool]:
    """The rows that need a run, not arithmetic alone, and whether any run of theirs is recorded; quoted ones are not.

    A row without a recipe needs one where the dissertation prints a value in a column that no arithmetic fills.
    """
    known = {}
    for row in found.rows:
        if row.origin == "quoted" and not (row.recipe or row.count):
            continue
        columns = [column for column in found.columns if not (column.arithmetic or column.setting)]
        recipes = [recipe for column in columns if (recipe := recipe_of(found, row, column)) is not None]
        printed = any(row.values.get(column.id) is not None for column in columns)
        if recipes or printed:
            runs = {run for recipe in recipes for run in runs_of(recipe, profile)}
            known[row.id] = any(look.record(run, profile) for run in runs)
    return known


def state_of(found: Exhibit, profile: str, look: Look | None = None) -> ExhibitState:
    """One word for an exhibit under a profile.

    `waiting`: for something that is not built (`waits_for`), though its arithmetic may be recorded. `drawing`: nothing
    of it is to be measured. `no run`: its recipes have no run under the profile. `not run`: none of its runs is
    recorded. `partly`: some are, or a row of it waits or has none. `stale`: all are, some of them by other code.
    `rechecked`: all are, some of them by other code, which a probe has found to give the same numbers. `measured`: all
    are, by the code that is here; also where all that it has is arithmetic.
    """
    if found.waits_for:
        return "waiting"
    look = look or Look()
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
    ran = [look.record(run, profile) for run in runs]
    kept = ran + [look.record(count, "paper") for count in counts]
    if not any(ran or kept):
        return "not run"
    if waiting or not all(kept) or not all(rows_run(found, profile, look).values()):
        return "partly"
    standings = {look.standing(record) for record in kept}
    return next((word for word in ("stale", "rechecked") if word in standings), "measured")


def counted(found: Exhibit, look: Look | None = None) -> bool:
    """Whether all that is arithmetic in an exhibit is recorded, and there is some."""
    look = look or Look()
    made = [recipe_of(found, row, column) for row in found.rows for column in found.columns if column.arithmetic]
    runs = {run for recipe in made if recipe is not None for run in runs_of(recipe, "paper")}
    return bool(runs) and all(look.record(run, "paper") for run in runs)
