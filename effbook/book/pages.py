"""Pages that are generated when the book is built: all exhibits, each chapter's as printed, the errata; the ledgers."""

from pathlib import Path

from effbook.book import cells
from effbook.book.cells import write_cells
from effbook.book.overview import exhibits_html
from effbook.book.places import places
from effbook.book.printed import errata_page, printed_page
from effbook.book.templating import raw
from effbook.chapters import CHAPTERS

EXHIBITS_INTRO = """\
# All exhibits

Every numbered table and figure of the dissertation, with its state here and how its claims came out. Each stands in
full, as printed, on the page of its chapter below; {doc}`reading` explains states and verdicts, {doc}`errata` lists
what we found while reproducing. `effbook exhibits --json` prints the same list for programs.

"""


def write_generated(stage: Path, *, profile: str, version: str) -> None:
    """Write the generated pages into the staging folder."""
    from effbook import exhibits
    from effbook.runs import bench as ledger

    look = exhibits.Look()
    listed, known, where = exhibits.entries(look=look), exhibits.register(), places(stage)
    book = stage / "book"
    _write(book / "exhibits.md", EXHIBITS_INTRO + raw(exhibits_html(listed, profile=profile, where=where)))
    _write(book / "errata.md", errata_page(list(known.values()), listed, where))
    for chapter in CHAPTERS:
        found = [one for one in known.values() if one.chapter == chapter]
        page = printed_page(chapter, found, listed, where, profile=profile, look=look)
        _write(book / "printed" / f"{chapter}.md", page)
    write_cells(stage / "extra" / cells.FOLDER, listed, where, profile=profile, look=look)
    for folder in sorted(path.parent for path in book.glob("*/runs.md")):  # included by a chapter's page
        chapter = [one for one in listed if folder.name in one.systems]
        table = exhibits_html(chapter, profile=profile, where=where, root="../../", filters=False)
        _write(folder / "verdicts.md", raw(table))
        _write(folder / "bench.md", bench_table(ledger.recorded(folder.name)))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


def bench_table(entries: dict[str, dict]) -> str:
    """A system's ledger as MyST: ratios or differences, both sides, the figure to reach and the reported one.

    Ratios of recorded runs name the records, and say where those are stale.
    """
    from effbook.runs.bench import standing_of

    if not entries:
        return "Nothing is benched yet: `effbook bench` does it.\n"
    lines = ["| what | ratio or difference | both sides | to reach | reported |", "|---|---|---|---|---|"]
    for name, entry in entries.items():
        r = entry["ratio"]
        spread = f" ({r['low']:.3g} to {r['high']:.3g}, {r['pairs']} pairs)" if r["pairs"] > 1 else ""
        mark = {True: "✓ ", False: "✗ ", None: ""}[entry["reached"]]
        sides = f"{_short(r['a'])} {r.get('sign', '/')} {_short(r['b'])} {r['unit']}"
        target = f"{mark}{entry['threshold']}".replace("<=", "≤").replace(">=", "≥")
        if "records" in entry:
            sides += f", from {len(entry['records'])} records ({standing_of(entry['records'])})"
        lines.append(f"| {name} | {r['value']:.3g}{spread} | {sides} | {target} | {entry['reported']} |")
    places = [entry["provenance"] for entry in entries.values() if "provenance" in entry]
    for device, threads in dict.fromkeys((where["device"], where["threads"]) for where in places):
        lines += ["", f"Medians, with quartiles over the pairs, on: {device}, {threads} threads."]
    read = {name: entry["records"] for name, entry in entries.items() if "records" in entry}
    if read:
        lines += ["", "Read from records, whose own provenance holds for these ratios:", ""]
        lines += [f"- {name}: {', '.join(f'`{path}`' for path in paths)}" for name, paths in read.items()]
    return "\n".join([*lines, ""])


def _short(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"
