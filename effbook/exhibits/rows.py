"""An exhibit's table as its template reads it: the heads, and for each row the reported and the measured cells."""

import itertools
from dataclasses import dataclass, replace

from markupsafe import Markup

from effbook.exhibits.measure import Measured, Table, stand_in
from effbook.exhibits.schema import Column, Exhibit, Row
from effbook.exhibits.text import (
    ORIGINS,
    count_mark,
    heading,
    in_full,
    measured_text,
    numbered_notes,
    recheck_text,
    reported_text,
    state_text,
)

WIDE, ROOM = 8, 6  # columns beyond which a table with groups is cut, and that a part of it may have


@dataclass(frozen=True, kw_only=True)
class Head:
    """A cell of the table's head."""

    text: str
    scope: str = "col"
    colspan: int = 0
    rowspan: int = 0
    setting: bool = False
    badge: Markup | str = ""


@dataclass(frozen=True, kw_only=True)
class Printed:
    """A reported cell: best and near are how the dissertation sets it off, `mark` its footnote, `note` ours."""

    text: str
    tag: str = ""
    setting: bool = False
    mark: str = ""
    note: int | None = None


@dataclass(frozen=True, kw_only=True)
class Ours:
    """A measured cell: `title` is its value in full, `why` what its state rests on."""

    text: str = ""
    title: str = ""
    link: str = ""
    differs: bool = False
    state: str = ""
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row: the group that begins with it, its name, and its cells; without a measured value none of ours."""

    group: str
    name: str
    origin: str
    mark: str
    note: int | None
    reported: list[Printed]
    measured: list[Ours]
    scale: Markup
    network: str = ""  # that stands in for the dissertation's
    state: str = ""  # of all its values alike, which then is not told with each
    why: str = ""


def parts_of(found: Exhibit) -> list[tuple[Column, ...]]:
    """The columns that stand side by side: all, or in a wide table whole groups, as many as a page has room for.

    So no column is hidden beyond a page's edge, such as memory, which a table may be about.
    """
    groups = [tuple(of) for _, of in itertools.groupby(found.columns, key=lambda column: column.group)]
    if len(found.columns) <= WIDE or max(map(len, groups)) > ROOM:
        return [found.columns]
    parts: list[tuple[Column, ...]] = []
    for group in groups:
        if parts and len(parts[-1]) + len(group) <= ROOM:
            parts[-1] += group
        else:
            parts.append(group)
    return parts


def heads_of(found: Exhibit, columns: tuple[Column, ...], counted: Markup) -> list[list[Head]]:
    """The head: what the rows are called, and the columns, those of one group under its name.

    `counted` is the badge of arithmetic.
    """
    keys = list(dict.fromkeys(key for row in found.rows for key in row.label if key))
    grouped = any(column.group for column in columns)
    deep = 2 if grouped else 0
    upper, lower = [Head(text=", ".join(keys), rowspan=deep)], []
    for name, of in itertools.groupby(columns, key=lambda column: column.group):
        under = list(of)
        if name:
            upper.append(Head(text=name, scope="colgroup", colspan=len(under)))
        for column in under:
            (lower if name else upper).append(
                Head(
                    text=heading(column, group=False),
                    rowspan=0 if name else deep,
                    setting=column.setting,
                    badge=counted if column.arithmetic and not column.setting else "",
                )
            )
    return [upper, lower] if grouped else [upper]


def rows_of(table: Table, columns: tuple[Column, ...], *, measured: Markup, counted: Markup, root: str) -> list[Line]:
    """The rows that have anything in these columns.

    `measured` and `counted` name the lines of ours, the second where they hold nothing but arithmetic. `root`
    leads from the page to the pages of single values.
    """
    found, numbers = table.exhibit, numbered_notes(table.exhibit)
    reported = "reported, " if next(table.with_values(), None) else ""  # from here on told apart from measured
    lines, group = [], ""
    for row in found.rows:
        pairs = [(column, table.cell(row.id, column.id)) for column in columns]
        if not any(column.id in row.values or cell.value is not None for column, cell in pairs):
            continue
        ran = any(cell.value is not None and not column.arithmetic for column, cell in pairs)
        ours, state, why = _hoisted([(column, _ours(found.id, row, column, cell, root)) for column, cell in pairs])
        some = any(cell.value is not None for _, cell in pairs)
        lines.append(
            Line(
                group=row.group if row.group != group else "",
                name=row.short,
                origin=f"{reported}{ORIGINS[row.origin]}",
                mark=row.footnotes.get("row", ""),
                note=numbers.get(row.waits_for),
                reported=[_printed(row, column, numbers) for column in columns],
                measured=ours if some else [],
                scale=measured if ran else counted,
                network=stand_in(found, row, table.profile) if ran else "",
                state=state,
                why=why,
            )
        )
        group = row.group or group
    return lines


def _hoisted(pairs: list[tuple[Column, Ours]]) -> tuple[list[Ours], str, str]:
    """The cells of a line, and apart from them the state that all its measured values share, such as rechecked."""
    told = [cell for column, cell in pairs if cell.text and not column.arithmetic]
    states = {cell.state for cell in told}
    state = next(iter(states)) if len(states) == 1 else ""
    why = "; ".join(dict.fromkeys(cell.why for cell in told if cell.why)) if state else ""
    cells = [
        replace(cell, state="", why="") if state and cell.text and cell.state == state else cell for _, cell in pairs
    ]
    return cells, state, why


def _printed(row: Row, column: Column, numbers: dict[str, int]) -> Printed:
    return Printed(
        text=reported_text(row, column),
        tag=row.marks.get(column.id, ""),
        setting=column.setting,
        mark=row.footnotes.get(column.id, ""),
        note=numbers.get(row.notes.get(column.id)),
    )


def cell_page(exhibit: str, row: str, column: str) -> str:
    """Where the page of a measured value lies, below the folder of all."""
    return f"{exhibit}/{row}.{column}.html"


def _ours(exhibit: str, row: Row, column: Column, cell: Measured, root: str) -> Ours:
    state, why = state_text(cell), recheck_text(cell)
    if cell.value is None:
        return Ours(state=state)
    text, title = measured_text(row, column, cell), ""
    if column.arithmetic:  # in the table's own form, and in full on hovering
        text, title = text.partition(" (")[0], in_full(cell.value)
    return Ours(
        text=text,
        title=title,
        link=f"{root}{cell_page(exhibit, row.id, column.id)}" if cell.paths and cell.profile != "smoke" else "",
        differs=count_mark(row, column, cell) == "differs",
        state=state,
        why=why,
    )


def records_of(table: Table) -> list[str]:
    """The paths of the records behind the values, once each, below the records' folder; none for smoke."""
    if table.profile == "smoke":
        return []
    return list(dict.fromkeys(path for _, _, cell in table.with_values() for path in cell.paths))
