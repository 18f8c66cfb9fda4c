"""Generated pages: a chapter's tables and figures as printed, and all errata; both as MyST."""

import re
from html import escape

from effbook.book.places import Places
from effbook.chapters import CHAPTERS, TITLES
from effbook.exhibits.html import STYLE, printed_html
from effbook.exhibits.listing import KINDS, Entry
from effbook.exhibits.look import Look
from effbook.exhibits.schema import Exhibit
from effbook.exhibits.text import reading_text

PRINTED_INTRO = """\
# {title}, as printed

All that the dissertation prints in tables and figures here, in its order: {count}. With each stand what we measured,
where we have, its claims with their verdicts, what contradicts itself in the text, and what it waits for.
{{doc}}`../reading` explains the marks.

"""

ERRATA_INTRO = """\
# Errata found while reproducing

Where the dissertation contradicts itself or the arithmetic: {errata} entries on {exhibits} exhibits. Each says what we
decided. {{ref}}`Below them <set-right>`, apart, stands what is no error of the dissertation: its text came to us
through a machine that read the PDF, and {readings} places were set right from the context.

"""


def printed_page(
    chapter: str, found: list[Exhibit], listed: list[Entry], where: Places, *, profile: str, look: Look | None = None
) -> str:
    """A chapter's page, as MyST: its exhibits in full, in the dissertation's order."""
    look = look or Look()
    entries = {one.id: one for one in listed}
    kinds = [sum(one.kind == kind for one in found) for kind in KINDS]
    words = [f"{n} {word}{'s' if n > 1 else ''}" for n, word in zip(kinds, KINDS[:2], strict=False) if n]
    words += [f"{kinds[2]} with numbers that stand in prose only"] * bool(kinds[2])
    parts = [PRINTED_INTRO.format(title=TITLES[chapter], count=", ".join(words) or "nothing yet"), raw(STYLE)]
    for one in in_order(found):
        notebook, errata = where.notebook(entries[one.id]), where.errata(entries[one.id])
        links = f'<a href="../../{notebook}">in its notebook</a>' if notebook else ""
        html = printed_html(one.id, profile, links=links, errata=f"../../{errata}" if errata else "", look=look)
        anchor = raw(f'<span class="eff-anchor" id="{escape(one.id)}"></span>')  # above the heading, to show it too
        parts += [anchor, f"## {plain(name_of(one.id))}: {plain(one.title)}\n\n", raw(html)]
    return "".join(parts)


def in_order(found: list[Exhibit]) -> list[Exhibit]:
    """In the dissertation's order: tables and figures by their numbers, and interleaved by their sections."""
    placed = []
    for rank, kind in enumerate(("figure", "table", "prose")):
        latest: tuple = ()
        for one in (one for one in found if one.kind == kind):  # the register has them by number
            latest = max(latest, _section(one.section))
            placed.append((latest, rank, one))
    return [one for *_, one in sorted(placed, key=lambda each: each[:2])]


def _section(section: str) -> tuple:
    """Sections in order: numbers before letters, 3.2.10 after 3.2.9; what follows the number has no part."""
    parts = re.match(r"[\w.]*", section)[0].strip(".").split(".")
    return tuple((not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts)


def name_of(exhibit_id: str) -> str:
    """An exhibit's name in words: "Table 3.12"."""
    kind, _, number = exhibit_id.partition("-")
    return f"{ {'tab': 'Table', 'fig': 'Figure', 'prose': 'Prose of section'}[kind] } {number.partition('-')[0]}"


def errata_page(known: list[Exhibit], listed: list[Entry], where: Places) -> str:
    """The page of all errata, as MyST, by chapter and exhibit; and apart, what was set right in the text we read."""
    entries = {one.id: one for one in listed}
    wrong, read = [one for one in known if one.errata], [one for one in known if one.set_right]
    parts = [
        ERRATA_INTRO.format(
            errata=sum(len(one.errata) for one in wrong),
            exhibits=len(wrong),
            readings=sum(len(one.set_right) for one in read),
        ),
        "## In the dissertation\n\n",
    ]
    for chapter, found in _by_chapter(wrong):
        lists = [_errata_list(one, where.printed(entries[one.id])) for one in found]
        parts += [f"### {TITLES[chapter]}\n\n", raw("\n".join(lists))]
    parts.append("(set-right)=\n\n## In the text that we read\n\n")
    for chapter, found in _by_chapter(read):
        lists = [_readings_list(one, where.printed(entries[one.id])) for one in found]
        parts += [f"### {TITLES[chapter]}: readings set right\n\n", raw("\n".join(lists))]
    return "".join(parts)


def _by_chapter(found: list[Exhibit]) -> list[tuple[str, list[Exhibit]]]:
    by = [(chapter, in_order([one for one in found if one.chapter == chapter])) for chapter in CHAPTERS]
    return [(chapter, those) for chapter, those in by if those]


def _errata_list(one: Exhibit, printed: str | None) -> str:
    lines = "".join(f"<li>{escape(e.text)} <em>{escape(e.decided)}</em></li>" for e in one.errata)
    return f'<p id="{escape(one.id)}">{_named(one, printed)}</p><ul>{lines}</ul>'


def _readings_list(one: Exhibit, printed: str | None) -> str:
    lines = "".join(f"<li>{escape(reading_text(reading))}</li>" for reading in one.set_right)
    return f"<p>{_named(one, printed)}</p><ul>{lines}</ul>"


def _named(one: Exhibit, printed: str | None) -> str:
    name = f"<strong>{escape(name_of(one.id))}</strong>"
    linked = f'<a href="../{escape(printed)}">{name}</a>' if printed else name
    return f"{linked} {escape(one.title)} <small>(section {escape(one.section)})</small>"


def plain(text: str) -> str:
    """Text that MyST prints as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#$&|~^@])", r"\\\1", text)


def raw(html: str) -> str:
    """HTML as a block that MyST hands on as it is."""
    return f"```{{raw}} html\n{html}\n```\n"
