"""Exhibits as tables: in the terminal, as CSV and as JSON. No number is shown without the badge of its profile."""

import csv
import io
import math

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from effbook.chapters import CHAPTERS
from effbook.errors import EffbookError
from effbook.exhibits.claims import VERDICTS, Judgement, judge
from effbook.exhibits.measure import (
    STATES,
    Measured,
    Table,
    as_printed,
    counted,
    in_full,
    looking,
    matches,
    measured,
    ran_as,
    state_of,
    summary,
)
from effbook.exhibits.register import exhibit, register
from effbook.exhibits.schema import Column, Exhibit, Reading, Row
from effbook.runs.profiles import PROFILES, check_profile
from effbook.runs.recipe import nearest

REPORTED = ("exhibit", "row", "column", "value", "unit")
MEASURED = (*REPORTED, "seeds", "spread", "record")
STYLES = {"holds": "green", "fails": "red", "undecided": "yellow", "not run": "dim"}
STATE_STYLES = {"measured": "green", "partly": "cyan", "stale": "yellow"}  # the others: dim
ORIGINS = {"own": "own run", "rerun": "rival rerun", "computed": "computed", "quoted": "quoted"}
ARITHMETIC = "paper, arithmetic"  # the badge of what no profile changes
KINDS = ("table", "figure", "prose")
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
    """Beside a value: stale, partial; without one: why there is none."""
    if cell.value is None:
        return cell.state if cell.state in ("not run", "no run", "no value") else ""
    partial = f"{len(cell.by_seed)} of {cell.planned} seeds" if cell.state == "partial" else ""
    return ", ".join(part for part in (partial, "stale" if cell.stale else "") if part)


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


def judgements(table: Table) -> list[Judgement]:
    """Every claim of the exhibit, judged."""
    return [judge(claim, table.exhibit, table.profile, table) for claim in table.exhibit.claims]


def show_terminal(exhibit_id: str, profile: str = "mini", console: Console | None = None) -> None:
    """Print an exhibit: reported beside measured, the claims with their verdicts, and the errata."""
    table = measured(exhibit_id, check_profile(profile))
    found, console = table.exhibit, console or _console()
    state = state_of(found, profile)
    console.print(
        f"\n[bold]{found.id}[/] {escape(found.title)} [dim]({escape(found.section)})[/] "
        f"[{STATE_STYLES.get(state, 'dim')}]{state}[/]",
        highlight=False,
    )
    for line in (found.caption, *drawing_lines(found)):
        if line:
            console.print(f"[dim]{escape(line)}[/]", highlight=False)
    if found.rows:
        console.print(_rich(table))
    lines = [f"{mark} {text}" for mark, text in found.footnotes.items()]
    lines += [f"[{number}] {text}" for text, number in numbered_notes(found).items()]
    for line in (*lines, waits_text(found), *notes(table)):
        if line:
            console.print(f"[dim]{escape(line)}[/]", highlight=False)
    for judgement in judgements(table):
        where = "arithmetic" if judgement.arithmetic else profile
        console.print(
            f"[{STYLES[judgement.verdict]}]{judgement.verdict:>9}[/] \\[{where}] {escape(judgement.claim.text)}"
            + (f" [dim]({escape(judgement.claim.source)})[/]")
            + (" [yellow]disputed by the printed values[/]" if judgement.claim.disputed else "")
            + "".join(f" [dim]{escape(text)}[/]" for text in (judgement.why, judgement.claim.note) if text),
            highlight=False,
        )
    _print_errata(found, console)
    for reading in found.set_right:
        console.print(f"  [dim]set right[/] {escape(reading_text(reading))}", highlight=False)


def waits_text(found: Exhibit) -> str:
    """What an exhibit waits for, and whether its arithmetic is there already; "" where it waits for nothing."""
    there = " Its arithmetic is recorded." if found.waits_for and counted(found) else ""
    return f"Waits for: {found.waits_for.rstrip('.')}.{there}" if found.waits_for else ""


def _print_errata(found: Exhibit, console: Console) -> None:
    for erratum in found.errata:
        console.print(f"  [dim]erratum[/] {escape(erratum.text)} [dim]{escape(erratum.decided)}[/]", highlight=False)


def reading_text(reading: Reading) -> str:
    """What was set right in the machine-read text, as a line."""
    return f"{reading.where}: read {reading.read!r}, taken as {reading.taken!r}. {reading.because}"


def drawing_lines(found: Exhibit) -> list[str]:
    """What a figure shows, a fact a line."""
    return [f"{name}: {text}" for name, text in drawing_facts(found)]


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


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=160)  # a pipe has no width to fit


def _rich(table: Table) -> RichTable:
    found, numbers = table.exhibit, numbered_notes(table.exhibit)
    shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("", no_wrap=True)
    for column in found.columns:
        style = "dim" if column.setting else None
        shown.add_column(escape(heading(column)), justify="right", overflow="fold", style=style)
    group = ""
    for row in found.rows:
        if row.group and row.group != group:
            group = row.group
            shown.add_row(f"[bold]{escape(group)}[/]")
        printed = [escape(_with_marks(row, column, numbers)) for column in found.columns]
        name = row.short + row.footnotes.get("row", "") + (f"[{numbers[row.waits_for]}]" if row.waits_for else "")
        shown.add_row(f"{escape(name)} [dim]{ORIGINS[row.origin]}[/]", *printed)
        cells = [table.cell(row.id, column.id) for column in found.columns]
        states = [cell.state for cell in sorted(cells, key=lambda c: c.exact) if cell.state in ("not run", "no run")]
        if any(cell.value is not None for cell in cells):
            alone = all(cell.exact for cell in cells if cell.state != "none")  # then the line bears the badge
            texts = [_measured_cell(row, *each, alone=alone) for each in zip(found.columns, cells, strict=True)]
            shown.add_row(f"[cyan]  \\[{ARITHMETIC if alone else table.profile}][/]", *texts)
        elif states:
            shown.add_row(f"[cyan]  \\[{table.profile}][/] [dim]{states[0]}[/]")
    return shown


def _with_marks(row: Row, column: Column, numbers: dict[str, int]) -> str:
    note = row.notes.get(column.id)
    number = f"[{numbers[note]}]" if note else ""
    return reported_text(row, column) + row.footnotes.get(column.id, "") + number


def _measured_cell(row: Row, column: Column, cell: Measured, *, alone: bool) -> str:
    value, state = measured_text(row, column, cell), state_text(cell)
    if cell.value is None:
        return "[dim]–[/]" if state else ""
    if column.arithmetic:
        value += "" if alone else f" \\[{ARITHMETIC}]"
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
    return list(dict.fromkeys(lines))


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
        value = f"{cell.value:.0f}" if column.arithmetic and cell.value == round(cell.value) else f"{cell.value:.10g}"
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
        "chapter": found.chapter,
        "notebook": found.notebook,
        "reported": found.reported,
        "why": found.why,
        "waits_for": found.waits_for,
        "systems": list(found.systems),
        "profiles": {profile: summary(found, profile) | {"state": state_of(found, profile)} for profile in profiles},
        "claims": [
            {
                "id": claim.id,
                "text": claim.text,
                "verdicts": {profile: judged[profile][i].verdict for profile in profiles},
            }
            for i, claim in enumerate(found.claims)
        ],
        "errata": len(found.errata),
    }


def chosen(listed: list[dict], profile: str, **words: str | None) -> list[dict]:
    """Those of `exhibits_json` that fit the words: chapter, kind, state or verdict under a profile.

    Raises EffbookError with near names for a word that none of them can be.
    """
    known = {"chapter": CHAPTERS, "kind": KINDS, "state": STATES, "verdict": VERDICTS}
    for name, word in words.items():
        if word is not None and word not in known[name]:
            raise EffbookError(f"there is no {name} {word!r}", nearest(word, list(known[name])))

    def has(one: dict, name: str) -> tuple[str, ...]:
        if name == "verdict":
            return tuple(claim["verdicts"][profile] for claim in one["claims"])
        return (one["profiles"][profile]["state"] if name == "state" else one[name],)

    return [one for one in listed if all(word is None or word in has(one, name) for name, word in words.items())]


def tally(listed: list[dict], profile: str) -> dict[str, dict[str, int]]:
    """How many of a list are of each kind and, numbered exhibits alone, in each state; how many claims, by verdict."""
    states = [one["profiles"][profile]["state"] for one in listed if one["kind"] != "prose"]
    verdicts = [claim["verdicts"][profile] for one in listed for claim in one["claims"]]
    kinds = [one["kind"] for one in listed]
    return {
        "kind": {kind: kinds.count(kind) for kind in KINDS},
        "state": {state: states.count(state) for state in STATES if state in states},
        "verdict": {verdict: verdicts.count(verdict) for verdict in VERDICTS if verdict in verdicts},
    }


def counts_of(listed: list[dict], profile: str) -> list[str]:
    """The same in lines for people."""
    told = tally(listed, profile)
    tables, figures, prose = (told["kind"][kind] for kind in KINDS)
    apart = f"; counted apart, {prose} with numbers that stand in prose only" if prose else ""
    return [
        f"{tables + figures} exhibits: {tables} tables, {figures} figures{apart}",
        f"under {profile}: " + ", ".join(f"{n} {state}" for state, n in told["state"].items()),
        f"{sum(told['verdict'].values())} claims: " + ", ".join(f"{n} {word}" for word, n in told["verdict"].items()),
        f"{sum(one['errata'] for one in listed)} errata",
    ]


def runs_text(one: dict, profile: str) -> str:
    """How far the runs of an entry of `exhibits_json` are."""
    runs = one["profiles"][profile]
    if not runs["runs"]:
        return ""
    stale = f", {runs['stale']} stale" if runs["stale"] else ""
    return f"{runs['recorded']} of {runs['runs']}{stale}"


def show_exhibits(profile: str = "mini", console: Console | None = None, **words: str | None) -> None:
    """Print the register: each exhibit with its state, its runs and its verdicts under a profile; counts first."""
    listed = exhibits_json((check_profile(profile),))
    fit, console = chosen(listed, profile, **words), console or _console()
    for line in counts_of(listed, profile):
        console.print(line, highlight=False)
    if any(words.values()):
        console.print(f"of these, {len(fit)} that fit:", highlight=False)
    shown = RichTable(title=f"Exhibits under {profile}", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("exhibit", "title", "section", "state", "runs", "claims"):
        shown.add_column(name, no_wrap=name in ("exhibit", "state", "runs"))
    for entry in fit:
        state = entry["profiles"][profile]["state"]
        verdicts = [claim["verdicts"][profile] for claim in entry["claims"]]
        told = ", ".join(f"[{STYLES[v]}]{verdicts.count(v)} {v}[/]" for v in STYLES if v in verdicts)
        word = f"[{STATE_STYLES.get(state, 'dim')}]{state}[/]"
        cells = (escape(entry["title"]), escape(entry["section"]), word, runs_text(entry, profile), told)
        shown.add_row(entry["id"], *cells)
    if fit:
        console.print(shown)


def show_errata(chapter: str | None = None, console: Console | None = None) -> None:
    """Print every erratum, exhibit by exhibit, with what was decided."""
    if chapter is not None and chapter not in CHAPTERS:
        raise EffbookError(f"there is no chapter {chapter!r}", nearest(chapter, list(CHAPTERS)))
    console = console or _console()
    for found in register().values():
        if found.errata and chapter in (None, found.chapter):
            console.print(f"\n[bold]{found.id}[/] {escape(found.title)}", highlight=False)
            _print_errata(found, console)
