"""Records without their runs."""

import functools

from effbook.runs import records
from effbook.runs.code import fingerprint
from effbook.runs.recipe import Recipe, Result
from effbook.runs.records import CostOf, Record


def recorded(run: Recipe, profile: str, metrics: dict[str, float | None], *, code: str = "") -> Record:
    """Write a record with these metrics, made by the code that is here or by `code`; None gets a note."""
    notes = {name: "its program is not here" for name, value in metrics.items() if value is None}
    return records.write(
        run,
        profile,
        Result(metrics=metrics, notes=notes),
        fingerprint=code or code_here(run.modules()),
        modules={},
        accelerator="cpu",
        cost=CostOf(wall_seconds=1.0, peak_memory_bytes=1),
    )


@functools.cache
def code_here(modules: tuple[str, ...]) -> str:
    """The fingerprint of the code that is here, which stands still while tests run."""
    return fingerprint(modules)
