"""Generated pages: a chapter's tables and figures as printed, and all errata; both as MyST."""

import re

from markupsafe import Markup

from effbook.book.places import Places
from effbook.book.templating import rendered
from effbook.chapters import CHAPTERS, TITLES
from effbook.exhibits.html import STYLE, printed_html
from effbook.exhibits.listing import KINDS, Entry
from effbook.exhibits.look import Look
from effbook.exhibits.schema import Exhibit
from effbook.exhibits.text import reading_text

LINK = Markup('<a href="../../{}">in its notebook</a>')


def printed_page(
    chapter: str, found: list[Exhibit], listed: list[Entry], where: Places, *, profile: str, look: Look | None = None
) -> str:
    """A chapter's page, as MyST: its exhibits in full, in the dissertation's order."""
    look = look or Look()
    entries = {one.id: one for one in listed}
    kinds = [sum(one.kind == kind for one in found) for kind in KINDS]
    words = [f"{n} {word}{'s' if n > 1 else ''}" for n, word in zip(kinds, KINDS[:2], strict=False) if n]
    words += [f"{kinds[2]} with numbers that stand in prose only"] * bool(kinds[2])
    shown = []
    for one in in_order(found):
        notebook, errata = where.notebook(entries[one.id]), where.errata(entries[one.id])
        links = LINK.format(notebook) if notebook else ""
        html = printed_html(one.id, profile, links=links, errata=f"../../{errata}" if errata else "", look=look)
        shown.append({"id": one.id, "name": name_of(one.id), "title": one.title, "html": html})
    count = ", ".join(words) or "nothing yet"
    return rendered("printed.md", title=TITLES[chapter], count=count, style=STYLE, exhibits=shown)


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

    def by_chapter(found: list[Exhibit]) -> list[tuple[str, list[dict[str, object]]]]:
        parts = [(TITLES[name], in_order([one for one in found if one.chapter == name])) for name in CHAPTERS]
        return [(title, [told(one) for one in those]) for title, those in parts if those]

    def told(one: Exhibit) -> dict[str, object]:
        readings = [reading_text(reading) for reading in one.set_right]
        return {"found": one, "name": name_of(one.id), "printed": where.printed(entries[one.id]), "readings": readings}

    return rendered(
        "errata.md",
        errata=sum(len(one.errata) for one in wrong),
        exhibits=len(wrong),
        readings=sum(len(one.set_right) for one in read),
        wrong=by_chapter(wrong),
        read=by_chapter(read),
    )
