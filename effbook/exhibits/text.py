"""Exhibits in words and digits: what the terminal, the pages and the files print of a cell, a column, a table."""

import math
from decimal import ROUND_HALF_UP, Decimal

from effbook.exhibits.look import Look
from effbook.exhibits.measure import Measured, Table, ran_as
from effbook.exhibits.schema import Column, Exhibit, Reading, Row
from effbook.exhibits.states import counted

ORIGINS = {"own": "own run", "rerun": "rival rerun", "computed": "computed", "quoted": "quoted"}
ARITHMETIC = "paper, arithmetic"  # the badge of what no profile changes
EMPTY = {"printed as a dash": "–", "left blank": "", "printed blank": ""}  # by the first words of a null's note


def reported_text(row: Row, column: Column) -> str:
    """A reported value as printed, its spread in brackets; "?" where our text lacks it, "" where the table has none.

    A null whose note begins with "Printed as a dash" is a dash, and one that was "Left blank" is blank.
    """
    if column.id not in row.values:
        return ""
    value = row.values[column.id]
    if value is None:
        note = row.notes[column.id].lower()
        return next((shown for words, shown in EMPTY.items() if note.startswith(words)), "?")
    return value + (f" ({row.spreads[column.id]})" if column.id in row.spreads else "")


def numbered_notes(found: Exhibit) -> dict[str, int]:
    """What a reader must know of single cells and rows, each text once, numbered in the table's order."""
    told: dict[str, int] = {}
    for row in found.rows:
        for text in (row.waits_for, *(row.notes[c.id] for c in found.columns if c.id in row.notes)):
            if text:
                told.setdefault(text, len(told) + 1)
    return told


def measured_text(row: Row, column: Column, cell: Measured) -> str:
    """A measured value with half its 95 % interval, to the digits that the table prints; a count as the table's own."""
    if cell.value is None:
        return ""
    if column.arithmetic:
        exact, printed = in_full(cell.value), row.values.get(column.id)
        ours = as_printed(cell.value, printed, column.mega) if printed else exact
        return ours if ours.replace(",", "") == exact.replace(",", "") else f"{ours} ({exact})"
    places = decimals(column, row, cell.value)
    half = "" if not cell.half_width else f" ±{cell.half_width:.{places}f}"
    return f"{cell.value:.{places}f}{half}"


def decimals(column: Column, row: Row, value: float) -> int:
    """As many decimals as the row's reported value has, or, without one, three significant digits."""
    printed = row.values.get(column.id)
    if printed:
        return len(printed.rstrip("KM").partition(".")[2])
    return min(4, max(0, 2 - math.floor(math.log10(abs(value))))) if value else 0


def state_text(cell: Measured) -> str:
    """Beside a value: partial, rechecked, stale; without one: why there is none."""
    if cell.value is None:
        return cell.state if cell.state in ("not run", "no run", "no value") else ""
    partial = f"{len(cell.by_seed)} of {cell.planned} seeds" if cell.state == "partial" else ""
    return ", ".join(part for part in (partial, cell.standing if cell.standing != "measured" else "") if part)


def recheck_text(cell: Measured) -> str:
    """What a rechecked cell rests on, with the commit of the code and the day of the recheck; "" for another cell."""
    if cell.standing != "rechecked":
        return ""
    return f"the same numbers come out of a probe of this recipe at its commit and now ({'; '.join(cell.rechecked)})"


def count_mark(row: Row, column: Column, cell: Measured) -> str:
    """For an arithmetic cell with a printed value: whether our count prints as the table's text."""
    if not column.arithmetic or cell.value is None or row.values.get(column.id) is None:
        return ""
    return "matches" if matches(row, column, cell.value) else "differs"


def heading(column: Column, *, group: bool = True) -> str:
    """The column's label with its group, unit and direction."""
    arrow = {"higher": " ↑", "lower": " ↓", "none": ""}[column.direction]
    unit = f" [{column.unit}]" if column.unit not in ("", "parameters") else ""
    return f"{column.group if group else ''} {column.label}".strip() + unit + arrow


def waits_text(found: Exhibit, look: Look | None = None) -> str:
    """What an exhibit waits for, and whether its arithmetic is there already; "" where it waits for nothing."""
    there = " Its arithmetic is recorded." if found.waits_for and counted(found, look) else ""
    return f"Waits for: {found.waits_for.rstrip('.')}.{there}" if found.waits_for else ""


def reading_text(reading: Reading) -> str:
    """What was set right in the machine-read text, as a line."""
    return f"{reading.where}: read {reading.read!r}, taken as {reading.taken!r}. {reading.because}"


def drawing_facts(found: Exhibit) -> list[tuple[str, str]]:
    """What a figure shows: form, axes, series, what the text gives of its values, what draws it anew."""
    if (drawn := found.figure) is None:
        return []
    facts = [
        ("Form", drawn.form),
        ("Shows", drawn.shows),
        ("Across", drawn.x),
        ("Upwards", drawn.y),
        ("Series", "; ".join(drawn.series)),
        ("Given in the text", drawn.given),
        ("Drawn anew by", drawn.drawn_by),
    ]
    return [(name, text) for name, text in facts if text]


def notes(table: Table) -> list[str]:
    """What a reader must know: what the profile changed, and why values are missing."""
    lines = []
    if changed := ran_as(table.exhibit, table.profile):
        told = "; ".join(f"{name}: {', '.join(values)}" for name, values in changed.items())
        lines.append(f"What {table.profile} changes: {told}.")
    for column in table.exhibit.columns:
        lacking = {c.note for (_, name), c in table.cells.items() if name == column.id and c.state == "no value"}
        lines += [f"{column.label}: {note}." for note in sorted(lacking)]
    if table.exhibit.why:
        lines.append(table.exhibit.why)
    if any(cell.standing == "rechecked" for cell in table.cells.values()):
        lines.append(
            "Rechecked values come from older code than is here; a probe of the same recipe gives the same numbers at "
            "its commit and now."
        )
    if any(cell.stale for cell in table.cells.values()):
        lines.append("Stale values (hollow in the plot) come from other code than is here; `run … --fresh` recomputes.")
    return list(dict.fromkeys(lines))


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


def number(text: str, mega: int = 1_000_000) -> float:
    """A printed value as a number: "47K" is 47,000, or 49,283 where the table's K is 2^20 / 1000; "48h" is 2880 min."""
    unit = {"K": mega / 1000, "M": float(mega), "B": 1000.0 * mega, "h": 60.0}.get(text[-1], 1.0)
    return float(text.rstrip("KMBh").replace(",", "")) * unit
