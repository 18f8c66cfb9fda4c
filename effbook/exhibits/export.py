"""Exhibits as CSV, for programs: what is reported, and what our records say."""

import csv
import io

from effbook.exhibits.look import Look
from effbook.exhibits.measure import measured
from effbook.exhibits.register import exhibit

REPORTED = ("exhibit", "row", "column", "value", "unit")
MEASURED = (*REPORTED, "seeds", "spread", "record", "state")


def reported_csv(exhibit_id: str) -> str:
    """Every value that the dissertation's table has, as printed; empty where our text lacks it."""
    found = exhibit(exhibit_id)
    lines = [
        (found.id, row.id, column.id, row.values[column.id] or "", column.unit)
        for row in found.rows
        for column in found.columns
        if column.id in row.values
    ]
    return _csv(REPORTED, lines)


def measured_csv(exhibit_id: str, profile: str, look: Look | None = None) -> str:
    """Every measured value: mean over seeds, half its 95 % interval as spread, the records and their state."""
    table = measured(exhibit_id, profile, look)
    lines = []
    for row, column, cell in table.with_values():
        spread = "" if cell.half_width is None else f"{cell.half_width:.10g}"
        value = f"{cell.value:.0f}" if column.arithmetic and cell.value == round(cell.value) else f"{cell.value:.10g}"
        place = (table.exhibit.id, row.id, column.id)
        lines.append((*place, value, column.unit, cell.n, spread, " ".join(cell.paths), cell.standing))
    return _csv(MEASURED, lines)


def _csv(header: tuple[str, ...], lines: list[tuple]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *lines])
    return out.getvalue()
