"""Arithmetic, done now: every printed value of an exhibit that follows from settings beside ours, for notebooks."""

from dataclasses import dataclass

from effbook.exhibits.register import exhibit, recipe_of
from effbook.exhibits.text import as_printed, in_full


@dataclass(frozen=True, kw_only=True)
class Count:
    """A printed value and ours, which `ours` prints in the same unit and digits; they match if the texts are equal."""

    row: str
    column: str
    name: str
    printed: str
    ours: str
    exact: float

    @property
    def matches(self) -> bool:
        return self.printed == self.ours


def counts(exhibit_id: str) -> list[Count]:
    """Work out every cell of an exhibit's arithmetic columns that has a printed value and a recipe; no run, no record.

    Left out are cells for which the recipe says that the value does not follow.
    """
    found, counted = exhibit(exhibit_id), []
    columns = [column for column in found.columns if column.arithmetic]
    for row in found.rows:
        for column in columns:
            printed, recipe = row.values.get(column.id), recipe_of(found, row, column)
            if printed is None or recipe is None:
                continue
            value = recipe.run(None).metrics.get(column.metric)  # arithmetic needs no context
            if value is not None:
                exact = value * column.scale
                ours = as_printed(exact, printed, column.mega)
                name = f"{row.name}, {column.label}" if len(columns) > 1 else row.name
                counted.append(Count(row=row.id, column=column.id, name=name, printed=printed, ours=ours, exact=exact))
    return counted


def counts_text(exhibit_id: str) -> str:
    """The counts as plain lines, the same on every machine."""
    lines = counts(exhibit_id)
    width = max((len(line.name) for line in lines), default=0)
    told = [
        f"{line.name:<{width}}  {line.printed:>11}  {in_full(line.exact):>11}  "
        f"{'matches' if line.matches else 'differs'}"
        for line in lines
    ]
    return "\n".join([f"{exhibit_id:<{width}}  {'printed':>11}  {'counted':>11}", *told])
