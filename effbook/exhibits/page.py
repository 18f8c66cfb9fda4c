"""What notebooks call: an exhibit as HTML with badges and verdicts, and the parts of it."""

import itertools
from html import escape

from effbook.exhibits import plots, theme
from effbook.exhibits.claims import Judgement, judge
from effbook.exhibits.counts import counts_text
from effbook.exhibits.measure import Measured, Table, in_full, measured, state_of
from effbook.exhibits.schema import Column, Exhibit, Row
from effbook.exhibits.tables import (
    ORIGINS,
    count_mark,
    drawing_facts,
    heading,
    judgements,
    measured_text,
    notes,
    numbered_notes,
    reported_text,
    state_text,
    waits_text,
)
from effbook.runs.profiles import check_profile

RECORDS = "../../records/"  # seen from a notebook's page on the site
MEANING = {
    "smoke": "seconds; proves that every path runs, the numbers mean nothing",
    "mini": "real data and weights at a small scale; only the claims are judged",
    "lab": "one GPU at CIFAR scale; only the claims are judged",
    "paper": "the dissertation's own protocol",
}
SETTING = ' class="eff-set"'
SIGNS = {"holds": "✓", "fails": "✗", "undecided": "~", "not run": "–"}
STYLE = """<style>
.eff-exhibit{margin:1rem 0}
.eff-scroll{overflow-x:auto;max-width:100%;-webkit-overflow-scrolling:touch}
.eff-exhibit table{border-collapse:collapse;font-size:.85rem;width:auto;margin:.5rem 0;color:inherit;background:none}
.eff-exhibit th,.eff-exhibit td{padding:.2rem .6rem;text-align:right;white-space:nowrap;border:0;color:inherit;
background:none}
.eff-exhibit thead th{border-bottom:1px solid #7a828c;vertical-align:bottom;white-space:normal;min-width:3.5rem}
.eff-exhibit tbody th,.eff-exhibit thead tr:first-child th:first-child{text-align:left}
.eff-exhibit tbody th{font-weight:500}
.eff-exhibit tr.eff-group th{font-weight:700;padding-top:.6rem}
.eff-exhibit tr.eff-measured td,.eff-exhibit tr.eff-measured th{padding-bottom:.45rem;font-weight:600}
.eff-exhibit tr.eff-reported td{opacity:.8}
.eff-exhibit thead th[colspan]{text-align:center}
.eff-exhibit small{opacity:.75;font-weight:400}
.eff-exhibit .eff-set{font-style:italic}
.eff-exhibit dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem .8rem;font-size:.85rem}
.eff-exhibit dt{font-weight:600}.eff-exhibit dd{margin:0}
.eff-badge,.eff-verdict{display:inline-block;border:1px solid currentColor;border-radius:.7rem;padding:0 .5rem;
font-size:.75rem;font-weight:600;line-height:1.5;white-space:nowrap}
.eff-badge{color:#7a828c}.eff-badge.eff-mini{color:#0e7cb0}.eff-badge.eff-lab{color:#b3651f}
.eff-badge.eff-paper{color:#178a5f}
.eff-holds{color:#178a5f}.eff-fails{color:#d0472f}.eff-undecided{color:#a8760a}.eff-not-run{color:#7a828c}
.eff-claims{list-style:none;padding-left:0}.eff-claims li{margin:.35rem 0}
.eff-plot{max-width:100%;height:auto;background:none}
</style>"""


def badge(profile: str, *, arithmetic: bool = False) -> str:
    """The profile's badge as HTML; `arithmetic` marks counts, which are of paper scale under any profile."""
    name = "paper, arithmetic" if arithmetic else check_profile(profile)
    kind = "paper" if arithmetic else profile
    return f'<span class="eff-badge eff-{kind}" title="{escape(MEANING[kind])}">{name}</span>'


def chip(judgement: Judgement) -> str:
    """A verdict as a chip: its sign, its word and a colour, with the badge of the scale that it was judged at."""
    word = judgement.verdict
    scale = badge(judgement.profile, arithmetic=judgement.arithmetic)
    return f'<span class="eff-verdict eff-{word.replace(" ", "-")}">{SIGNS[word]} {word}</span> {scale}'


def html(exhibit_id: str, profile: str, *, plot: bool = True) -> str:
    """An exhibit in full for a notebook: badge, table, plot, claims, errata, and links to the records."""
    table = measured(exhibit_id, check_profile(profile))
    found = table.exhibit
    where = f"{found.section}" if found.kind == "prose" else f"{found.id}, {found.section}"
    opening = f'<div class="eff-exhibit" id="{escape(found.id)}">'
    head = f"<p><strong>{escape(found.title)}</strong> <small>({escape(where)})</small> {badge(profile)}</p>"
    return _joined([STYLE, opening, head, *_body(table, plot=plot), "</div>"])


def printed_html(exhibit_id: str, profile: str, *, links: str = "", errata: str = "") -> str:
    """An exhibit in full for the book's pages of its chapter: nothing folded but the records, nothing drawn.

    Heading, anchor and STYLE are the page's. `links` stands in the first line; `errata` leads to the page of errata.
    """
    table = measured(exhibit_id, check_profile(profile))
    found = table.exhibit
    word = f'<span class="eff-state">{state_of(found, profile)}</span>'
    head = f"<p><small>Section {escape(found.section)}.</small> {word} {badge(profile)} {links}</p>"
    body = _body(table, plot=False, folded=False, errata=errata)
    return _joined(['<div class="eff-exhibit">', head, *body, "</div>"])


def _joined(parts: list[str]) -> str:
    return "\n".join(part for part in parts if part)


def _body(table: Table, *, plot: bool, folded: bool = True, errata: str = "") -> list[str]:
    found = table.exhibit
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in drawing_facts(found))
    return [
        f"<p><small>{escape(found.caption)}</small></p>" if found.caption else "",
        f"<dl>{facts}</dl>" if facts else "",
        table_html(table) if found.rows else "",
        notes_html(found),
        *(f"<p><small>{escape(note)}</small></p>" for note in (waits_text(found), *notes(table)) if note),
        plot_html(found.id, table.profile) if plot else "",
        claims_html(table),
        errata_html(found, folded=folded, link=errata),
        readings_html(found, folded=folded),
        _records(table),
    ]


def table_html(table: Table) -> str:
    """The table alone: for each row the reported line, and below it the measured one with its badge.

    A column of counts has its badge in its head; a line with nothing but counts says so.
    """
    found, numbers = table.exhibit, numbered_notes(table.exhibit)
    reported = "reported, " if next(table.with_values(), None) else ""  # from here on told apart from measured
    lines, group = [], ""
    for row in found.rows:
        if row.group and row.group != group:
            group = row.group
            wide = len(found.columns) + 1
            lines.append(f'<tr class="eff-group"><th scope="rowgroup" colspan="{wide}">{escape(group)}</th></tr>')
        cells = [table.cell(row.id, column.id) for column in found.columns]
        printed = "".join(
            f"<td{SETTING if column.setting else ''}>{_printed(row, column, numbers)}</td>" for column in found.columns
        )
        name = escape(row.short) + _marks(row.footnotes.get("row"), numbers.get(row.waits_for))
        lines.append(
            f'<tr class="eff-reported"><th scope="row">{name} <small>{reported}{ORIGINS[row.origin]}</small></th>'
            f"{printed}</tr>"
        )
        if any(cell.value is not None for cell in cells):
            ours = "".join(f"<td>{_ours(row, c, cell)}</td>" for c, cell in zip(found.columns, cells, strict=True))
            ran = any(c.value is not None and not k.arithmetic for k, c in zip(found.columns, cells, strict=True))
            name = f"measured {badge(table.profile)}" if ran else f"counted {badge('paper', arithmetic=True)}"
            lines.append(f'<tr class="eff-measured"><th scope="row">{name}</th>{ours}</tr>')
    body = "\n".join(lines)
    return (
        f'<div class="eff-scroll" tabindex="0" role="region" aria-label="{escape(found.title)}"><table>'
        f"<thead>{_heads(found)}</thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _heads(found: Exhibit) -> str:
    """The head: what the rows are called, and the columns, those of one group under its name."""
    keys = list(dict.fromkeys(key for row in found.rows for key in row.label if key))
    grouped = any(column.group for column in found.columns)
    deep = ' rowspan="2"' if grouped else ""
    upper, lower = [f'<th scope="col"{deep}>{escape(", ".join(keys))}</th>'], []
    for name, of in itertools.groupby(found.columns, key=lambda column: column.group):
        columns = list(of)
        if name:
            upper.append(f'<th scope="colgroup" colspan="{len(columns)}">{escape(name)}</th>')
        cells = [f'<th scope="col"{"" if name else deep}>{_head(column)}</th>' for column in columns]
        (lower if name else upper).extend(cells)
    return f"<tr>{''.join(upper)}</tr>" + (f"<tr>{''.join(lower)}</tr>" if grouped else "")


def _head(column: Column) -> str:
    text = escape(heading(column, group=False))
    if column.setting:
        return f"{text} <small>setting</small>"
    return f"{text} {badge('paper', arithmetic=True)}" if column.arithmetic else text


def _printed(row: Row, column: Column, numbers: dict[str, int]) -> str:
    text = escape(reported_text(row, column))
    tag = {"best": "strong", "near": "u"}.get(row.marks.get(column.id, ""))
    text = f"<{tag}>{text}</{tag}>" if tag else text
    return text + _marks(row.footnotes.get(column.id), numbers.get(row.notes.get(column.id)))


def _marks(printed: str | None, number: int | None) -> str:
    """The dissertation's footnote mark, and the number of our note."""
    ours = f"[{number}]" if number else ""
    return f"<sup>{escape(printed or '')}{ours}</sup>" if printed or ours else ""


def notes_html(found: Exhibit) -> str:
    """The footnotes, spelled out, and our notes on single cells and rows."""
    marks = "".join(f"<br><sup>{escape(mark)}</sup> {escape(text)}" for mark, text in found.footnotes.items())
    ours = "".join(f"<br>[{number}] {escape(text)}" for text, number in numbered_notes(found).items())
    told = (marks + ours).removeprefix("<br>").replace("<br>", "<br/>")
    return f'<p class="eff-notes"><small>{told}</small></p>' if told else ""


def _ours(row: Row, column: Column, cell: Measured) -> str:
    state = state_text(cell)
    if cell.value is None:
        return f"<small>{escape(state)}</small>"
    text, title = escape(measured_text(row, column, cell)), ""
    if column.arithmetic:  # in the table's own form, and in full on hovering
        title = f' title="{in_full(cell.value)}"'
        text = text.partition(" (")[0]
    if cell.paths and cell.profile != "smoke":
        text = f'<a href="{RECORDS}{cell.paths[0]}"{title}>{text}</a>'
    if column.arithmetic and count_mark(row, column, cell) == "differs":
        text += " <small>differs</small>"
    return text + (f" <small>{escape(state)}</small>" if state else "")


def plot_html(exhibit_id: str, profile: str) -> str:
    """The plot of reported beside measured with its alt text; empty where there is nothing to draw."""
    figure = plots.reported_beside_measured(exhibit_id, profile)
    return "" if figure is None else theme.html(figure, plots.alt_text(exhibit_id, profile))


def claims_html(table: Table) -> str:
    """The claims with their verdicts."""
    lines = []
    for j in judgements(table):
        disputed = "the printed values contradict it" if j.claim.disputed else ""
        told = ". ".join(text.rstrip(".") for text in (j.claim.source, disputed, j.why, j.claim.note) if text)
        lines.append(f"<li>{chip(j)} {escape(j.claim.text)} <small>{escape(told)}</small></li>")
    return f'<ul class="eff-claims">{"".join(lines)}</ul>' if lines else ""


def errata_html(found: Exhibit, *, folded: bool = True, link: str = "") -> str:
    """Where the dissertation contradicts itself, and what was decided."""
    lines = [f"{escape(e.text)} <em>{escape(e.decided)}</em>" for e in found.errata]
    more = f' <a href="{escape(link)}">among all errata</a>' if link else ""
    return _details(f"{len(lines)} {'erratum' if len(lines) == 1 else 'errata'}", lines, folded=folded, more=more)


def readings_html(found: Exhibit, *, folded: bool = True) -> str:
    """What was set right in the machine-read text."""
    lines = [
        f"{escape(r.where)}: read <q>{escape(r.read)}</q>, taken as <q>{escape(r.taken)}</q>. "
        f"<em>{escape(r.because)}</em>"
        for r in found.set_right
    ]
    return _details(f"{len(lines)} set right in our reading of the text", lines, folded=folded)


def _details(title: str, lines: list[str], *, folded: bool, more: str = "") -> str:
    told = "".join(f"<li>{line}</li>" for line in lines)
    opened = "" if folded else ' open="open"'
    return f"<details{opened}><summary>{title}{more}</summary><ul>{told}</ul></details>" if lines else ""


def _records(table: Table) -> str:
    if table.profile == "smoke":
        return ""
    paths = list(dict.fromkeys(path for _, _, cell in table.with_values() for path in cell.paths))
    links = "".join(f'<li><a href="{RECORDS}{path}">{escape(path)}</a></li>' for path in paths)
    return f"<details><summary>{len(paths)} records</summary><ul>{links}</ul></details>" if paths else ""


def value(exhibit_id: str, row: str, column: str, profile: str) -> str:
    """A measured value for running text, with its scale, as "87.9 ±1.3 [mini]"; where there is none, why: "not run"."""
    table = measured(exhibit_id, profile)
    cell, of = table.cell(row, column), table.exhibit.column(column)
    if cell.value is None:
        return "not measured" if cell.state == "none" else cell.state
    scale = "paper, arithmetic" if of.arithmetic else table.profile
    return f"{measured_text(table.exhibit.row(row), of, cell)} [{scale}]"


def verdict(exhibit_id: str, claim: str, profile: str) -> str:
    """A claim's verdict for running text, with its scale: "holds [mini]"."""
    judged = judge(claim, exhibit_id, profile)
    return f"{judged.verdict} [{'paper, arithmetic' if judged.arithmetic else judged.profile}]"


def show(exhibit_id: str, profile: str, *, plot: bool = True) -> None:
    """Display an exhibit in a notebook."""
    from IPython.display import HTML, display

    display(HTML(html(exhibit_id, profile, plot=plot)))


def show_claims(exhibit_id: str, profile: str) -> None:
    """Display the claims of an exhibit with their verdicts alone."""
    from IPython.display import HTML, display

    display(HTML(f'{STYLE}<div class="eff-exhibit">{claims_html(measured(exhibit_id, profile))}</div>'))


def show_counts(exhibit_id: str) -> None:
    """Print the arithmetic of an exhibit, done now, such as parameter counts; the same on every machine."""
    print(counts_text(exhibit_id))
