"""What notebooks call: an exhibit as HTML with badges and verdicts, and the parts of it. They know it as `page`."""

import functools
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from effbook import data
from effbook.exhibits.claims import Judgement, judge, judgements
from effbook.exhibits.counts import counts_text
from effbook.exhibits.look import Look
from effbook.exhibits.measure import Table, measured
from effbook.exhibits.register import recipes_of_exhibit
from effbook.exhibits.rows import heads_of, parts_of, records_of, rows_of
from effbook.exhibits.states import state_of
from effbook.exhibits.text import ARITHMETIC, drawing_facts, measured_text, notes, numbered_notes, waits_text
from effbook.runs.profiles import check_profile
from effbook.runs.progress import duration

FOLDER = Path(__file__).parent / "templates"
RECORDS, CELLS = "../../records/", "../../cells/"  # seen from a notebook's page on the site
MEANING = {
    "smoke": "seconds; proves that every path runs, the numbers mean nothing",
    "mini": "real data and weights at a small scale; only the claims are judged",
    "lab": "one GPU at CIFAR scale; only the claims are judged",
    "paper": "the dissertation's own protocol",
}
SIGNS = {"holds": "✓", "fails": "✗", "undecided": "~", "not run": "–"}
STYLE = Markup(f"<style>\n{(FOLDER / 'exhibit.css').read_text(encoding='utf-8')}</style>")


@functools.cache
def _environment() -> Environment:
    """The templates; whatever they print is escaped, unless it is markup already."""
    loader = FileSystemLoader(FOLDER)
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _rendered(template: str, **context: object) -> Markup:
    return Markup(_environment().get_template(f"{template}.html.jinja").render(**context).strip())


@functools.cache
def badge(profile: str, *, arithmetic: bool = False) -> Markup:
    """The profile's badge; `arithmetic` marks counts, which are of paper scale under any profile."""
    name = ARITHMETIC if arithmetic else check_profile(profile)
    kind = "paper" if arithmetic else profile
    return _environment().get_template("parts.html.jinja").module.badge(kind, name, MEANING[kind])


def chip(verdict: str, scale: Markup) -> Markup:
    """A verdict as a chip: its sign, its word and a colour, with the badge of the scale that it was judged at."""
    return _environment().get_template("parts.html.jinja").module.chip(verdict, SIGNS[verdict], scale)


def html(exhibit_id: str, profile: str, *, plot: bool = True, look: Look | None = None) -> Markup:
    """An exhibit in full for a notebook: badge, table, plot, claims, errata, and links to the records."""
    look = look or Look()
    table = measured(exhibit_id, check_profile(profile), look)
    found = table.exhibit
    where = found.section if found.kind == "prose" else f"{found.id}, {found.section}"
    return _rendered("exhibit", style=STYLE, where=where, folded=True, errata="", **_body(table, look, plot=plot))


def printed_html(
    exhibit_id: str, profile: str, *, links: str = "", errata: str = "", look: Look | None = None
) -> Markup:
    """An exhibit in full for the book's pages of its chapter: nothing folded but the records, nothing drawn.

    Heading, anchor and STYLE are the page's. `links`, markup, stands in the first line; `errata` is the address of the
    exhibit's place on the page of errata.
    """
    look = look or Look()
    table = measured(exhibit_id, check_profile(profile), look)
    state = state_of(table.exhibit, profile, look)
    body = _body(table, look, plot=False)
    return _rendered("printed", state=state, links=Markup(links), folded=False, errata=errata, **body)


def _body(table: Table, look: Look, *, plot: bool) -> dict[str, object]:
    found = table.exhibit
    return {
        "found": found,
        "badge": badge(table.profile),
        "facts": drawing_facts(found),
        "remarks": [note for note in (waits_text(found, look), *notes(table)) if note],
        "plot": plot_html(found.id, table.profile, look) if plot else "",
        "claims": [_claim(judgement) for judgement in judgements(table, look)],
        "records": records_of(table),
        "rerun": rerun_of(table, look),
        "root": RECORDS,
        **_table(table),
    }


def rerun_of(table: Table, look: Look) -> dict[str, object] | None:
    """The command that computes an exhibit again, what its runs took where they are recorded, and the data they read.

    None where it has no run under the profile. `elsewhere` names the data that no package registry carries.
    """
    runs = recipes_of_exhibit(table.exhibit, table.profile)
    if not runs:
        return None
    seconds = sum(r.cost.wall_seconds for run in runs if (r := look.record(run, table.profile)) is not None)
    read = sorted({name for run in runs for name in run.datasets()})
    return {
        "command": f"effbook run {table.exhibit.id} --profile {table.profile} --fresh",
        "runs": len(runs),
        "took": duration(seconds) if seconds else "",
        "data": [name for name in read if data.manifest(name).in_registries],
        "elsewhere": [name for name in read if not data.manifest(name).in_registries],
    }


def _table(table: Table) -> dict[str, object]:
    counted = badge("paper", arithmetic=True)
    lines = {"measured": Markup("measured ") + badge(table.profile), "counted": Markup("counted ") + counted}
    parts = parts_of(table.exhibit)
    return {
        "title": table.exhibit.title,
        "parts": [
            {
                "heads": heads_of(table.exhibit, columns, counted),
                "rows": rows_of(table, columns, **lines, root=CELLS),
                "width": len(columns) + 1,
                "name": ", ".join(dict.fromkeys(c.group for c in columns if c.group)) if len(parts) > 1 else "",
            }
            for columns in parts
        ],
        "numbers": numbered_notes(table.exhibit),
    }


def _claim(judgement: Judgement) -> dict[str, object]:
    claim = judgement.claim
    disputed = "the printed values contradict it" if claim.disputed else ""
    texts = (claim.source, disputed, judgement.numbers, judgement.why, claim.note)
    told = ". ".join(text.rstrip(".") for text in texts if text)
    scale = badge(judgement.profile, arithmetic=judgement.arithmetic)
    return {"chip": chip(judgement.verdict, scale), "text": claim.text, "told": told}


def plot_html(exhibit_id: str, profile: str, look: Look | None = None) -> Markup:
    """The plot of reported beside measured with its alt text; empty where there is nothing to draw."""
    from effbook.exhibits import plots, theme

    look = look or Look()
    figure = plots.reported_beside_measured(exhibit_id, profile, look=look)
    return Markup("" if figure is None else theme.html(figure, plots.alt_text(exhibit_id, profile, look=look)))


def claims_html(table: Table, look: Look | None = None) -> Markup:
    """The claims with their verdicts."""
    return _rendered("claims", claims=[_claim(judgement) for judgement in judgements(table, look)])


def value(exhibit_id: str, row: str, column: str, profile: str) -> str:
    """A measured value for running text, with its scale, as "87.9 ±1.3 [mini]"; where there is none, why: "not run"."""
    table = measured(exhibit_id, profile)
    cell, of = table.cell(row, column), table.exhibit.column(column)
    if cell.value is None:
        return "not measured" if cell.state == "none" else cell.state
    scale = ARITHMETIC if of.arithmetic else table.profile
    return f"{measured_text(table.exhibit.row(row), of, cell)} [{scale}{', stale' * cell.stale}]"


def verdict(exhibit_id: str, claim: str, profile: str) -> str:
    """A claim's verdict for running text, with its scale: "holds [mini]"."""
    judged = judge(claim, exhibit_id, profile)
    return f"{judged.verdict} [{ARITHMETIC if judged.arithmetic else judged.profile}]"


def show(exhibit_id: str, profile: str, *, plot: bool = True) -> None:
    """Display an exhibit in a notebook."""
    from IPython.display import HTML, display

    display(HTML(html(exhibit_id, profile, plot=plot)))


def show_claims(exhibit_id: str, profile: str) -> None:
    """Display the claims of an exhibit with their verdicts alone."""
    from IPython.display import HTML, display

    claims = claims_html(measured(exhibit_id, profile))
    display(HTML(STYLE + Markup('<div class="eff-exhibit">{}</div>').format(claims)))


def show_counts(exhibit_id: str) -> None:
    """Print the arithmetic of an exhibit, done now, such as parameter counts; the same on every machine."""
    print(counts_text(exhibit_id))
