"""A page for each measured value: its mean and interval, each seed's own value and record, recipe, data and command."""

import json
from pathlib import Path
from typing import Any

from markupsafe import Markup

from effbook.book.places import Places
from effbook.book.printed import name_of
from effbook.book.templating import rendered
from effbook.exhibits import Look
from effbook.exhibits.html import STYLE, badge
from effbook.exhibits.listing import Entry
from effbook.exhibits.measure import Measured, Table, measured
from effbook.exhibits.register import recipe_of, runs_of, unit_of
from effbook.exhibits.rows import cell_page
from effbook.exhibits.schema import Column, Row
from effbook.exhibits.text import heading, in_full, measured_text, reported_text, state_text
from effbook.runs.recipe import Recipe
from effbook.runs.records import Record

FOLDER = "cells"  # of the site
ROOT = "../../"  # from a page of a value to the site's root


def write_cells(folder: Path, listed: list[Entry], where: Places, *, profile: str, look: Look) -> int:
    """Write a page and a JSON file for each cell of these exhibits that has a value; how many there are."""
    written = 0
    for one in listed:
        table = measured(one.id, profile, look)
        back = where.notebook(one) or where.printed(one) or "index.html"
        for row, column, cell in table.with_values():
            told = _told(table, row, column, cell, look)
            place = folder / cell_page(one.id, row.id, column.id)
            place.parent.mkdir(parents=True, exist_ok=True)
            download = place.with_suffix(".json")
            page = rendered(
                "cell.html", style=STYLE, badge=_badge(cell), back=back, root=ROOT, file=download.name, **told
            )
            place.write_text(page, encoding="utf-8")
            data = {name: told[name] for name in ("exhibit", "row", "column", "unit", "reported", "profile", "state")}
            data |= {"mean": cell.value, "half_width_95": cell.half_width, "draws": cell.n}
            data |= {"seeds": [{key: run[key] for key in ("seed", "value", "record")} for run in told["runs"]]}
            data |= {"recipe": told["recipe"], "command": told["command"]}
            download.write_text(json.dumps(data, indent=1, ensure_ascii=False), encoding="utf-8")
            written += 1
    return written


def _badge(cell: Measured) -> Markup:
    return badge(cell.profile, arithmetic=cell.exact)


def _told(table: Table, row: Row, column: Column, cell: Measured, look: Look) -> dict[str, Any]:
    """What the page says of a cell."""
    found = table.exhibit
    recipe = recipe_of(found, row, column)
    kept = look.records(runs_of(recipe, cell.profile), cell.profile)
    unit = unit_of(column)
    units = look.records(runs_of(unit, cell.profile), cell.profile) if unit is not None else {}
    runs = [_run(record, seed, cell, look) for seed, record in sorted(kept.items()) if seed in cell.by_seed]
    first = kept[min(cell.by_seed)]
    known = first.recipe.fields
    return {
        "exhibit": found.id,
        "title": found.title,
        "row": row.id,
        "column": column.id,
        "name": f"{name_of(found.id)}, {row.name}, {heading(column)}",
        "unit": column.unit,
        "reported": reported_text(row, column),
        "measured": measured_text(row, column, cell),
        "full": in_full(cell.value) if column.arithmetic else f"{cell.value:.6g}",
        "exact": cell.exact,
        "draws": cell.n,
        "profile": cell.profile,
        "state": state_text(cell),
        "runs": runs,
        "units": [_run(record, seed, None, look) for seed, record in sorted(units.items())],
        "metric": column.metric,
        "recipe": {"name": first.recipe.name, "fields": {k: v for k, v in known.items() if k != "seed"}},
        "fields": _fields(recipe, known),
        "data": first.provenance.data,
        "device": f"{first.provenance.device}, {first.provenance.threads} thread{'s' * (first.provenance.threads > 1)}",
        "packages": first.provenance.packages,
        "command": f"effbook run {found.id} --profile {cell.profile} --fresh",
    }


def _run(record: Record, seed: int, cell: Measured | None, look: Look) -> dict[str, Any]:
    """A seed's line: its value in the cell's unit, what it took, and its record."""
    told = record.provenance
    return {
        "seed": seed,
        "value": cell.by_seed[seed] if cell is not None else None,
        "seconds": record.cost.wall_seconds,
        "memory_bytes": record.cost.peak_memory_bytes,
        "created": told.created[:10],
        "commit": (told.commit or "unknown")[:10],
        "standing": look.standing(record),
        "record": f"records/{record.profile}/{record.recipe.system}/{record.recipe.name}-{record.key}.json",
    }


def _fields(recipe: Recipe, ran: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Each field of what ran, and the dissertation's where that is another."""
    paper = recipe.fields
    return [
        (name, _short(value), _short(paper[name]) if paper.get(name) != value else "")
        for name, value in ran.items()
        if name != "seed"
    ]


def _short(value: object) -> str:
    return "all" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
