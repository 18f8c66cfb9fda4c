"""Exhibits as tables: in the terminal, as CSV and as JSON. No number is shown without the badge of its profile."""

import csv
import io
import math

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from effbook.exhibits.claims import Judgement, judge
from effbook.exhibits.measure import Measured, Table, as_printed, looking, matches, measured, ran_as, summary
from effbook.exhibits.register import exhibit, register
from effbook.exhibits.schema import Column, Exhibit, Row
from effbook.experiments.profiles import PROFILES, check_profile

REPORTED = ("exhibit", "row", "column", "value", "unit")
MEASURED = (*REPORTED, "seeds", "spread", "record")
STYLES = {"holds": "green", "fails": "red", "undecided": "yellow", "not run": "dim"}


def reported_text(row: Row, column: Column) -> str:
    """A reported value as printed, its spread in brackets; "?" where our text lacks it, "" where the table has none."""
    if column.id not in row.values:
        return ""
    value = row.values[column.id]
    spread = f" ({row.spreads[column.id]})" if column.id in row.spreads else ""
    return "?" if value is None else value + spread


def measured_text(row: Row, column: Column, cell: Measured) -> str:
    """A measured value with half its 95 % interval, to the digits that the table prints; a count as the table's own."""
    if cell.value is None:
        return ""
    if column.arithmetic:
        exact = f"{round(cell.value):,}"
        ours = as_printed(cell.value, row.values.get(column.id) or exact, column.mega)
        return ours if ours == exact else f"{ours} ({exact})"
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
    """Beside a value: stale, partial; without one: why there is none."""
    if cell.value is None:
        return cell.state if cell.state in ("not run", "no run", "no value") else ""
    partial = f"{cell.n} of {cell.planned} seeds" if cell.state == "partial" else ""
    return ", ".join(part for part in (partial, "stale" if cell.stale else "") if part)


def count_mark(row: Row, column: Column, cell: Measured) -> str:
    """For an arithmetic cell with a printed value: whether our count prints as the table's text."""
    if not column.arithmetic or cell.value is None or row.values.get(column.id) is None:
        return ""
    return "matches" if matches(row, column, cell.value) else "differs"


def heading(column: Column) -> str:
    """The column's label with its group, unit and direction."""
    arrow = {"higher": " ↑", "lower": " ↓", "none": ""}[column.direction]
    unit = f" [{column.unit}]" if column.unit and not column.arithmetic else ""
    return f"{column.group} {column.label}".strip() + unit + arrow


def judgements(table: Table) -> list[Judgement]:
    """Every claim of the exhibit, judged."""
    return [judge(claim, table.exhibit, table.profile, table) for claim in table.exhibit.claims]


def show_terminal(exhibit_id: str, profile: str = "mini", console: Console | None = None) -> None:
    """Print an exhibit: reported beside measured, the claims with their verdicts, and the errata."""
    table = measured(exhibit_id, check_profile(profile))
    found, console = table.exhibit, console or _console()
    console.print(f"\n[bold]{found.id}[/] {escape(found.title)} [dim]({found.section})[/]")
    if found.caption:
        console.print(f"[dim]{escape(found.caption)}[/]", highlight=False)
    if found.rows:
        console.print(_rich(table))
    for line in notes(table):
        console.print(f"[dim]{escape(line)}[/]", highlight=False)
    for judgement in judgements(table):
        where = "arithmetic" if judgement.arithmetic else profile
        console.print(
            f"[{STYLES[judgement.verdict]}]{judgement.verdict:>9}[/] \\[{where}] {escape(judgement.claim.text)}"
            + (f" [dim]{escape(judgement.why)}[/]" if judgement.why else ""),
            highlight=False,
        )
    for erratum in found.errata:
        console.print(f"  [dim]erratum[/] {escape(erratum.text)} [dim]{escape(erratum.decided)}[/]", highlight=False)


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=160)  # a pipe has no width to fit


def _rich(table: Table) -> RichTable:
    found = table.exhibit
    shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("", no_wrap=True)
    for column in found.columns:
        shown.add_column(heading(column), justify="right", overflow="fold")
    group = ""
    for row in found.rows:
        if row.group and row.group != group:
            group = row.group
            shown.add_row(f"[bold]{escape(group)}[/]")
        printed = [escape(reported_text(row, column)) for column in found.columns]
        shown.add_row(f"{escape(row.short)} [dim]{row.origin}[/]", *printed)
        cells = [table.cell(row.id, column.id) for column in found.columns]
        states = [cell.state for cell in sorted(cells, key=lambda c: c.exact) if cell.state in ("not run", "no run")]
        if any(cell.value is not None for cell in cells):
            texts = [_measured_cell(row, column, cell) for column, cell in zip(found.columns, cells, strict=True)]
            shown.add_row(f"[cyan]  \\[{table.profile}][/]", *texts)
        elif states:
            shown.add_row(f"[cyan]  \\[{table.profile}][/] [dim]{states[0]}[/]")
    return shown


def _measured_cell(row: Row, column: Column, cell: Measured) -> str:
    value, state = measured_text(row, column, cell), state_text(cell)
    if cell.value is None:
        return "[dim]–[/]" if state else ""
    if column.arithmetic:
        value += f" \\[{cell.profile}, arithmetic]"
        if count_mark(row, column, cell) == "differs":
            value += " [yellow]differs[/]"
    return value + (f" [dim]{state}[/]" if state else "")


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
    if any(cell.stale for cell in table.cells.values()):
        lines.append("Stale values (hollow in the plot) come from other code than is here; `run … --fresh` recomputes.")
    return lines


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


def measured_csv(exhibit_id: str, profile: str) -> str:
    """Every measured value: mean over seeds, half its 95 % interval as spread, and the records, space-separated."""
    table = measured(exhibit_id, profile)
    lines = []
    for row, column, cell in table.with_values():
        spread = "" if cell.half_width is None else f"{cell.half_width:.10g}"
        value = f"{cell.value:.10g}"
        lines.append((table.exhibit.id, row.id, column.id, value, column.unit, cell.n, spread, " ".join(cell.paths)))
    return _csv(MEASURED, lines)


def _csv(header: tuple[str, ...], lines: list[tuple]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *lines])
    return out.getvalue()


@looking()
def exhibits_json(profiles: tuple[str, ...] = PROFILES) -> list[dict]:
    """The register with each exhibit's state and verdicts, as `effbook exhibits --json` prints it."""
    return [_entry(found, profiles) for found in register().values()]


def _entry(found: Exhibit, profiles: tuple[str, ...]) -> dict:
    tables = {profile: measured(found, profile) for profile in profiles}
    judged = {profile: judgements(table) for profile, table in tables.items()}
    return {
        "id": found.id,
        "kind": found.kind,
        "title": found.title,
        "section": found.section,
        "notebook": found.notebook,
        "reported": found.reported,
        "why": found.why,
        "systems": list(found.systems),
        "profiles": {profile: summary(found, profile) for profile in profiles},
        "claims": [
            {
                "id": claim.id,
                "text": claim.text,
                "verdicts": {profile: judged[profile][i].verdict for profile in profiles},
            }
            for i, claim in enumerate(found.claims)
        ],
    }


def show_exhibits(profile: str = "mini", console: Console | None = None) -> None:
    """Print the register: each exhibit with its runs and its verdicts under a profile."""
    shown = RichTable(title=f"Exhibits under {check_profile(profile)}")
    for name in ("exhibit", "title", "section", "runs", "claims"):
        shown.add_column(name, no_wrap=name == "exhibit")
    for entry in exhibits_json((profile,)):
        runs = entry["profiles"][profile]
        done = f"{runs['recorded']} of {runs['runs']}" if runs["runs"] else "none"
        stale = f" ({runs['stale']} stale)" if runs["stale"] else ""
        verdicts = [claim["verdicts"][profile] for claim in entry["claims"]]
        told = ", ".join(f"[{STYLES[v]}]{verdicts.count(v)} {v}[/]" for v in STYLES if v in verdicts)
        shown.add_row(entry["id"], escape(entry["title"]), entry["section"], done + stale, told)
    (console or _console()).print(shown)
