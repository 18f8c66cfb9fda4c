"""Exhibits in the terminal. No number is shown without the badge of its profile."""

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from effbook.chapters import CHAPTERS
from effbook.errors import EffbookError
from effbook.exhibits.claims import judgements
from effbook.exhibits.listing import chosen, counts_of, entries, runs_text
from effbook.exhibits.look import Look
from effbook.exhibits.measure import Measured, Table, measured
from effbook.exhibits.register import register
from effbook.exhibits.schema import Column, Exhibit, Row
from effbook.exhibits.states import state_of
from effbook.exhibits.text import (
    ARITHMETIC,
    ORIGINS,
    count_mark,
    drawing_facts,
    heading,
    measured_text,
    notes,
    numbered_notes,
    reading_text,
    reported_text,
    state_text,
    waits_text,
)
from effbook.runs.profiles import check_profile
from effbook.runs.recipe import nearest

STYLES = {"holds": "green", "fails": "red", "undecided": "yellow", "not run": "dim"}
STATE_STYLES = {"measured": "green", "rechecked": "green", "partly": "cyan", "stale": "yellow"}  # the others: dim


def show_terminal(
    exhibit_id: str, profile: str = "mini", console: Console | None = None, look: Look | None = None
) -> None:
    """Print an exhibit: reported beside measured, the claims with their verdicts, and the errata."""
    look, console = look or Look(), console or _console()
    table = measured(exhibit_id, check_profile(profile), look)
    found = table.exhibit
    state = state_of(found, profile, look)
    console.print(
        f"\n[bold]{found.id}[/] {escape(found.title)} [dim]({escape(found.section)})[/] "
        f"[{STATE_STYLES.get(state, 'dim')}]{state}[/]",
        highlight=False,
    )
    for line in (found.caption, *(f"{name}: {text}" for name, text in drawing_facts(found))):
        if line:
            console.print(f"[dim]{escape(line)}[/]", highlight=False)
    if found.rows:
        console.print(_rich(table))
    lines = [f"{mark} {text}" for mark, text in found.footnotes.items()]
    lines += [f"[{number}] {text}" for text, number in numbered_notes(found).items()]
    for line in (*lines, waits_text(found, look), *notes(table)):
        if line:
            console.print(f"[dim]{escape(line)}[/]", highlight=False)
    for judgement in judgements(table, look):
        told = [text.rstrip(".") for text in (judgement.numbers, judgement.why, judgement.claim.note)]
        where = "arithmetic" if judgement.arithmetic else profile
        console.print(
            f"[{STYLES[judgement.verdict]}]{judgement.verdict:>9}[/] \\[{where}] {escape(judgement.claim.text)}"
            + (f" [dim]({escape(judgement.claim.source)})[/]")
            + (" [yellow]disputed by the printed values[/]" if judgement.claim.disputed else "")
            + "".join(f" [dim]{escape(text)}.[/]" for text in told if text),
            highlight=False,
        )
    _print_errata(found, console)
    for reading in found.set_right:
        console.print(f"  [dim]set right[/] {escape(reading_text(reading))}", highlight=False)


def _print_errata(found: Exhibit, console: Console) -> None:
    for erratum in found.errata:
        console.print(f"  [dim]erratum[/] {escape(erratum.text)} [dim]{escape(erratum.decided)}[/]", highlight=False)


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


def show_exhibits(
    profile: str = "mini", console: Console | None = None, look: Look | None = None, **words: str | None
) -> None:
    """Print the register: each exhibit with its state, its runs and its verdicts under a profile; counts first."""
    listed = entries((check_profile(profile),), look)
    fit, console = chosen(listed, profile, **words), console or _console()
    for line in counts_of(listed, profile):
        console.print(line, highlight=False)
    if any(words.values()):
        console.print(f"of these, {len(fit)} that fit:", highlight=False)
    shown = RichTable(title=f"Exhibits under {profile}", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("exhibit", "title", "section", "state", "runs", "claims"):
        shown.add_column(name, no_wrap=name in ("exhibit", "state", "runs"))
    for one in fit:
        runs, verdicts = one.profiles[profile], one.verdicts(profile)
        told = ", ".join(f"[{STYLES[v]}]{verdicts.count(v)} {v}[/]" for v in STYLES if v in verdicts)
        word = f"[{STATE_STYLES.get(runs.state, 'dim')}]{runs.state}[/]"
        shown.add_row(one.id, escape(one.title), escape(one.section), word, runs_text(runs), told)
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
