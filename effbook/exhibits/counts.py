"""Parameter counts, counted now: every printed count of an exhibit beside ours, for notebooks that check them."""

from dataclasses import dataclass

from effbook.exhibits.measure import as_printed
from effbook.exhibits.register import exhibit, recipe_of


@dataclass(frozen=True, kw_only=True)
class Count:
    """A printed count and ours, which `ours` prints in the same unit and digits; they match if the texts are equal."""

    row: str
    name: str
    printed: str
    ours: str
    exact: int

    @property
    def matches(self) -> bool:
        return self.printed == self.ours


def counts(exhibit_id: str) -> list[Count]:
    """Count every cell of an exhibit's arithmetic columns that has a printed value and a recipe. Nothing is trained."""
    found, counted = exhibit(exhibit_id), []
    for row in found.rows:
        for column in (c for c in found.columns if c.arithmetic):
            printed, recipe = row.values.get(column.id), recipe_of(found, row, column)
            if printed is not None and recipe is not None:
                exact, _ = recipe.count()
                ours = as_printed(exact, printed, column.mega)
                counted.append(Count(row=row.id, name=row.name, printed=printed, ours=ours, exact=exact))
    return counted


def counts_text(exhibit_id: str) -> str:
    """The counts as plain lines, the same on every machine."""
    lines = counts(exhibit_id)
    width = max(len(line.name) for line in lines)
    told = [
        f"{line.name:<{width}}  {line.printed:>11}  {line.exact:>11,}  {'matches' if line.matches else 'differs'}"
        for line in lines
    ]
    return "\n".join([f"{exhibit_id:<{width}}  {'printed':>11}  {'counted':>11}", *told])
