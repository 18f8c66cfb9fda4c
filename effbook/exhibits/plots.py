"""Plots of an exhibit: reported beside measured, on one axis under `paper` only, and curves of figures."""

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from effbook.exhibits.look import Look
from effbook.exhibits.measure import Table, measured
from effbook.exhibits.schema import Column, Exhibit, Row
from effbook.exhibits.text import number
from effbook.exhibits.theme import INK, themed

MOST_COLUMNS = 3
MOST_ROWS = 14
LONGEST_NAME = 34  # letters in a line
WIDTH_INCHES = 7.4  # of a page's text, so that letters come out as large as they are drawn


def reported_beside_measured(
    exhibit_id: str | Exhibit, profile: str, columns: Sequence[str] | None = None, look: Look | None = None
) -> Figure | None:
    """A figure, a row of panels for each column: the reported values, and the measured ones with their 95 % intervals.

    Under `paper` both stand on one axis; under any other profile each has its own, for the values are not comparable.
    `columns` are ids; by default the first that are measured, or reported if none is. None if there is nothing to draw.
    """
    table = measured(exhibit_id, profile, look)
    with themed():
        if table.exhibit.draw:
            return _curves(table)
        chosen = _columns(table, columns)
        return _dots(table, chosen) if chosen else None


def _columns(table: Table, wanted: Sequence[str] | None) -> list[Column]:
    found = table.exhibit
    if wanted is not None:
        return [found.column(name) for name in wanted]
    asked = [c for c in found.columns if not c.setting]
    free = [c for c in asked if not c.arithmetic] or asked
    ours = [c for c in free if any(table.cell(row.id, c.id).value is not None for row in found.rows)]
    theirs = [c for c in free if any(row.values.get(c.id) for row in found.rows)]
    return (ours or theirs)[:MOST_COLUMNS]


def names(found: Exhibit, rows: Sequence[Row]) -> list[str]:
    """The rows' names; where two would be the same, with the printed parameter count."""
    plain = [row.name for row in rows]
    counts = [
        next((row.values[c.id] for c in found.columns if c.arithmetic and row.values.get(c.id)), "") for row in rows
    ]
    return [f"{name}, {n}" if plain.count(name) > 1 and n else name for name, n in zip(plain, counts, strict=True)]


def _dots(table: Table, columns: list[Column]) -> Figure:
    found, paper = table.exhibit, table.profile == "paper"
    rows = [
        row
        for row in found.rows
        if any(row.values.get(c.id) or table.cell(row.id, c.id).value is not None for c in columns)
    ]
    with_ours = [row for row in rows if any(table.cell(row.id, c.id).value is not None for c in columns)]
    if with_ours and len(rows) > MOST_ROWS:  # a long table: the rows that can be compared
        rows = with_ours
    reported = any(row.values.get(c.id) for row in rows for c in columns)
    panels = 1 if paper or not (with_ours and reported) else 2
    size = (WIDTH_INCHES if panels == 2 else 0.7 * WIDTH_INCHES, len(columns) * (0.3 * len(rows) + 1.2))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(columns), panels, sharey=True, squeeze=False)
    for (left, *_, right), column in zip(axes[:, [0, -1]], columns, strict=True):
        if any(row.values.get(column.id) for row in rows):
            _reported(left, rows, column)
        elif panels == 2:
            left.text(0.5, 0.5, "no value printed", ha="center", va="center", transform=left.transAxes)
            left.set_xticks([])
        if with_ours:
            _measured(right, rows, column, table, offset=0.18 if paper and reported else 0.0)
        name = f"{column.group} {column.label}".strip()
        arrow = {"higher": "higher is better", "lower": "lower is better", "none": ""}[column.direction]
        unit = f" [{column.unit}]" if column.unit else ""
        scale = "paper, arithmetic" if column.arithmetic else table.profile
        if panels == 1:
            shown = " and ".join(["reported"] * reported + [f"measured [{scale}]"] * bool(with_ours))
            left.set_title(f"{name}\n{shown}")
        else:
            left.set_title(f"{name}\nreported")
            right.set_title(f"{name}\nmeasured [{scale}]")
        for axis in {left, right}:
            axis.set_xlabel(f"{unit.strip()} {arrow}".strip())
            if column.arithmetic:
                axis.set_xscale("log")
    for axis in axes[:, 0]:
        axis.set_yticks(range(len(rows)), [textwrap.fill(name, LONGEST_NAME) for name in names(found, rows)])
    axes[0, 0].set_ylim(len(rows) - 0.5, -0.5)
    return figure


def _reported(axis: Axes, rows: list[Row], column: Column) -> None:
    """Hollow diamonds; the printed spread as a bar."""
    for y, row in enumerate(rows):
        if (value := row.values.get(column.id)) is not None:
            spread = float(row.spreads.get(column.id, 0)) or None
            style = {"fmt": "D", "color": INK, "markerfacecolor": "none", "markersize": 6, "capsize": 2}
            axis.errorbar(number(value, column.mega), y, xerr=spread, **style)


def _measured(axis: Axes, rows: list[Row], column: Column, table: Table, *, offset: float) -> None:
    """Filled dots in the method's colour, with half the 95 % interval; a hollow one is stale."""
    import seaborn as sns

    methods = list(dict.fromkeys(next(iter(row.label.values()), "") for row in table.exhibit.rows))
    colours = dict(zip(methods, sns.color_palette(n_colors=max(len(methods), 1)), strict=False))
    for y, row in enumerate(rows):
        cell = table.cell(row.id, column.id)
        if cell.value is not None:
            colour = colours[next(iter(row.label.values()), "")]
            face = "none" if cell.stale else colour
            style = {"fmt": "o", "color": colour, "markerfacecolor": face, "markersize": 6, "capsize": 3}
            axis.errorbar(cell.value, y + offset, xerr=cell.half_width or None, **style)


def _curves(table: Table) -> Figure | None:
    """A line a row over the columns, coloured by method, one marker for each other label."""
    import seaborn as sns

    found, x_field = table.exhibit, table.exhibit.draw["x"]
    keys = list(dict.fromkeys(key for row in found.rows for key in row.label))
    data: dict[str, list] = {"x": [], "y": [], **{key: [] for key in keys}}
    for row, column, cell in table.with_values():
        for value in cell.by_seed.values():
            data["x"].append(column.recipe[x_field])
            data["y"].append(value)
            for key in keys:
                data[key].append(row.label.get(key, ""))
    if not data["x"]:
        return None
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axis = figure.subplots()
    style = {"style": keys[1]} if len(keys) > 1 else {}
    sns.lineplot(
        data=data, x="x", y="y", hue=keys[0], markers=True, errorbar=("ci", 95), n_boot=200, seed=0, ax=axis, **style
    )
    sns.move_legend(axis, "center left", bbox_to_anchor=(1, 0.5))
    axis.set_xscale("log", base=2)
    axis.set_xlabel(found.draw.get("x_label", x_field))
    axis.set_ylabel(found.draw.get("y_label", found.columns[0].label))
    axis.set_title(f"{found.title} [{table.profile}]")
    return figure


def alt_text(exhibit_id: str | Exhibit, profile: str, look: Look | None = None) -> str:
    """What the plot shows, in words with its numbers."""
    table = measured(exhibit_id, profile, look)
    drawn = {c.id for c in (table.exhibit.columns if table.exhibit.draw else _columns(table, None))}
    cells = [each for each in table.with_values() if each[1].id in drawn]
    if not cells:
        return f"{table.exhibit.title}: reported values; nothing is measured under {profile} yet."
    named = dict(zip([row.id for row in table.exhibit.rows], names(table.exhibit, table.exhibit.rows), strict=True))
    told = [
        f"{named[row.id]}, {f'{column.group} {column.label}'.strip()}: {cell.value:.4g}" for row, column, cell in cells
    ]
    more = f"; and {len(told) - 12} more in the table" if len(told) > 12 else ""
    return f"{table.exhibit.title}, measured under {profile}. " + "; ".join(told[:12]) + more + "."
