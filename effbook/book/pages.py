"""Pages that are generated when the book is built: the overview of all exhibits, and the profiles' table."""

from html import escape
from pathlib import Path

from effbook.exhibits.page import SIGNS, badge

EXHIBITS_INTRO = """\
# All exhibits

Every numbered table and figure that the companion knows, with what has been run and how its claims came out.
{doc}`reading` explains the verdicts. `effbook exhibits --json` prints the same list for programs.

"""


def write_generated(stage: Path, *, profile: str, version: str) -> None:
    """Write the generated pages into the staging folder."""
    from effbook import exhibits
    from effbook.experiments import ledger

    listed = exhibits.exhibits_json()
    pages = {path.with_suffix("").relative_to(stage).as_posix() for path in stage.glob("notebooks/**/*.ipynb")}
    (stage / "book" / "exhibits.md").write_text(
        EXHIBITS_INTRO + raw(exhibits_html(listed, profile=profile, pages=pages)), encoding="utf-8"
    )
    for folder in sorted(path.parent for path in (stage / "book").glob("*/runs.md")):  # included by a chapter's page
        chapter = [one for one in listed if folder.name in one["systems"]]
        table = exhibits_html(chapter, profile=profile, pages=pages, root="../../", filters=False)
        (folder / "verdicts.md").write_text(raw(table), encoding="utf-8")
        (folder / "bench.md").write_text(bench_table(ledger.recorded(folder.name)), encoding="utf-8")


def bench_table(entries: dict[str, dict]) -> str:
    """A system's ledger as MyST: ratios with quartiles, both sides, the figure to reach and the reported one."""
    if not entries:
        return "Nothing is benched yet: `effbook bench` does it.\n"
    lines = ["| what | ratio | both sides | to reach | reported |", "|---|---|---|---|---|"]
    for name, entry in entries.items():
        r = entry["ratio"]
        spread = f" ({r['low']:.3g} to {r['high']:.3g}, {r['pairs']} pairs)" if r["pairs"] > 1 else ""
        mark = {True: "✓ ", False: "✗ ", None: ""}[entry["reached"]]
        sides = f"{r['a']:,.0f} / {r['b']:,.0f} {r['unit']}"
        target = f"{mark}{entry['threshold']}".replace("<=", "≤").replace(">=", "≥")
        lines.append(f"| {name} | {r['value']:.3g}{spread} | {sides} | {target} | {entry['reported']} |")
    where = next(iter(entries.values()))["provenance"]
    told = f"Medians, with quartiles over the pairs, on: {where['device']}, {where['threads']} threads."
    return "\n".join([*lines, "", told, ""])


def raw(html: str) -> str:
    """HTML as a block that MyST hands on as it is."""
    return f"```{{raw}} html\n{html}\n```\n"


def exhibits_html(listed: list[dict], *, profile: str, pages: set[str], root: str = "../", filters: bool = True) -> str:
    """The overview as one HTML table with a filter that works in the browser alone.

    `listed` is what `effbook exhibits --json` prints; `pages` are the notebooks that the site has, without suffix;
    `root` leads from the page to the site's root.
    """
    verdicts = sorted({claim["verdicts"].get(profile, "not run") for one in listed for claim in one["claims"]})
    systems = sorted({system for one in listed for system in one["systems"]})
    controls = (
        '<div class="eff-filter" role="search">'
        '<label>Search <input type="search" data-filter="text" placeholder="rank, tab-3.12, …"></label>'
        f"{_select('System', 'systems', systems)}{_select('Kind', 'kind', ['table', 'figure', 'prose'])}"
        f"{_select('Verdict', 'verdicts', verdicts)}"
        '<output aria-live="polite"></output></div>'
    )
    head = '<th scope="col">Exhibit</th><th scope="col">Claims and their verdicts</th>'
    rows = "\n".join(_row(one, profile, pages, root) for one in listed)
    return (
        f'<div class="eff-exhibits">{controls if filters else ""}<div class="eff-scroll"><table class="eff-table">'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div></div>"
    )


def _row(one: dict, profile: str, pages: set[str], root: str) -> str:
    page = one["notebook"].removesuffix(".ipynb")
    name = escape(one["id"])
    link = f'<a href="{root}{page}.html">{name}</a>' if page in pages else f"<span>{name}</span>"
    verdicts = [claim["verdicts"].get(profile, "not run") for claim in one["claims"]]
    claims = "".join(
        f"<li>{_chips(claim['verdicts'], profile)} {escape(claim['text'])}</li>" for claim in one["claims"]
    )
    data = {"systems": " ".join(one["systems"]), "kind": one["kind"], "verdicts": "|".join(dict.fromkeys(verdicts))}
    attributes = " ".join(f'data-{key}="{escape(value)}"' for key, value in data.items())
    count = one["profiles"].get(profile, {"runs": 0, "recorded": 0, "stale": 0})
    return (
        f'<tr id="{name}" {attributes}><th scope="row">{link}<br>{escape(one["title"])}<br>'
        f"<small>section {escape(one['section'])}; {escape(_runs(count, one.get('why')))}</small></th>"
        f"<td><ul>{claims}</ul></td></tr>"
    )


def _chips(verdicts: dict[str, str], profile: str) -> str:
    """The verdict at this profile, and those that any other has come to, each with its badge.

    Smoke gives a verdict on counts alone, which no profile changes: those are shown once.
    """
    if (counted := verdicts.get("smoke", "not run")) != "not run":
        return _chip(counted, badge("paper", arithmetic=True))
    shown = {profile: verdicts.get(profile, "not run")}
    shown |= {name: verdict for name, verdict in verdicts.items() if verdict != "not run"}
    return " ".join(_chip(verdict, badge(name)) for name, verdict in shown.items())


def _chip(verdict: str, scale: str) -> str:
    kind = verdict.replace(" ", "-")
    return f'<span class="eff-verdict eff-{kind}">{SIGNS[verdict]} {verdict}</span> {scale}'


def _runs(count: dict, why: str | None) -> str:
    if not count["runs"]:
        return why or "no run at this profile"
    stale = f", {count['stale']} stale" if count["stale"] else ""
    return f"{count['recorded']} of {count['runs']} runs recorded{stale}"


def _select(label: str, key: str, options: list[str]) -> str:
    listed = "".join(f"<option>{escape(option)}</option>" for option in options)
    return f'<label>{label} <select data-filter="{key}"><option value="">all</option>{listed}</select></label>'
