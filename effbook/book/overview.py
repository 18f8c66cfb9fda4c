"""The generated list of all exhibits: states, verdicts and links, with a filter that works in the browser alone."""

from html import escape

from effbook.book.places import Places
from effbook.chapters import CHAPTERS, TITLES
from effbook.exhibits.html import badge, chip
from effbook.exhibits.listing import KINDS, Entry, tally


def exhibits_html(listed: list[Entry], *, profile: str, where: Places, root: str = "../", filters: bool = True) -> str:
    """The overview as one HTML table, with counts and a filter that works in the browser alone.

    `listed` is what `effbook exhibits` prints; `root` leads from the page to the site's root.
    """
    told = tally(listed, profile)
    chapters = {chapter: TITLES[chapter] for chapter in CHAPTERS if chapter in {one.chapter for one in listed}}
    controls = (
        '<div class="eff-filter" role="search">'
        '<label>Search <input type="search" data-filter="text" placeholder="rank, tab-3.12, …"></label>'
        f"{_select('Chapter', 'chapter', chapters)}{_select('Kind', 'kind', dict.fromkeys(KINDS))}"
        f"{_select('State', 'state', dict.fromkeys(told['state']))}"
        f"{_select('Verdict', 'verdict', dict.fromkeys(told['verdict']))}"
        '<output aria-live="polite"></output></div>'
    )
    head = '<th scope="col">Exhibit</th><th scope="col">Claims and their verdicts</th>'
    rows = "\n".join(_row(one, profile, where, root) for one in listed)
    above = _counts(told, listed, profile) + controls if filters else ""
    return (
        f'<div class="eff-exhibits">{above}<div class="eff-scroll"><table class="eff-table">'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div></div>"
    )


def _counts(told: dict[str, dict[str, int]], listed: list[Entry], profile: str) -> str:
    """How many exhibits of each kind and state, and claims of each verdict; each number filters the list."""

    def linked(key: str, *words: str, **names: str) -> str:
        each = {**{word: word for word in words}, **names}
        return ", ".join(
            f'<a href="?{key}={word.replace(" ", "+")}">{told[key][word]} {name}</a>' for word, name in each.items()
        )

    tables, figures, prose = (told["kind"][kind] for kind in KINDS)
    kinds = linked("kind", table="tables", figure="figures")
    apart = linked("kind", prose="with numbers that stand in prose only")
    lines = [
        f"<strong>{tables + figures} exhibits</strong>: {kinds}" + (f"; counted apart, {apart}" if prose else ""),
        f"{badge(profile)} {linked('state', *told['state'])}",
        f"<strong>{sum(told['verdict'].values())} claims</strong>: {linked('verdict', *told['verdict'])}",
        f"<strong>{sum(one.errata for one in listed)} errata</strong>",
    ]
    return f'<ul class="eff-counts">{"".join(f"<li>{line}</li>" for line in lines)}</ul>'


def _row(one: Entry, profile: str, where: Places, root: str) -> str:
    name, places = escape(one.id), {"as printed": where.printed(one), "in its notebook": where.notebook(one)}
    errata = f"{one.errata} {'erratum' if one.errata == 1 else 'errata'}"
    links = [f'<a href="{root}{place}">{word}</a>' for word, place in places.items() if place]
    links += [f'<a href="{root}{place}">{errata}</a>' if (place := where.errata(one)) else errata] * bool(one.errata)
    verdicts = one.verdicts(profile)
    claims = "".join(f"<li>{_chips(claim.verdicts, profile)} {escape(claim.text)}</li>" for claim in one.claims)
    state = one.profiles[profile].state
    data = {
        "chapter": one.chapter,
        "kind": one.kind,
        "state": state,
        "verdict": "|".join(dict.fromkeys(verdicts)),
    }
    attributes = " ".join(f'data-{key}="{escape(value)}"' for key, value in data.items())
    more = [f"section {escape(one.section)}", *links]
    return (
        f'<tr id="{name}" {attributes}><th scope="row"><span>{name}</span> {escape(one.title)}<br>'
        f'<span class="eff-state">{state}</span> <small>{escape(_state_text(one, profile))}</small><br>'
        f"<small>{' · '.join(more)}</small></th><td><ul>{claims}</ul></td></tr>"
    )


def _state_text(one: Entry, profile: str) -> str:
    """What stands behind the state: how many runs, or what it waits for."""
    count, counts = one.profiles[profile], one.profiles.get("paper")
    if count.state == "waiting":
        there = " Arithmetic of it is recorded." if counts and counts.recorded else ""
        return f"{one.waits_for or one.why or 'Some rows wait'}{there}"
    if not count.runs:
        return (one.why or "") if count.state in ("drawing", "no run") else "arithmetic"
    apart = "".join(f", {n} {word}" for word, n in (("rechecked", count.rechecked), ("stale", count.stale)) if n)
    return f"{count.recorded} of {count.runs} runs recorded{apart}"


def _chips(verdicts: dict[str, str], profile: str) -> str:
    """The verdict at this profile, and those that any other has come to, each with its badge.

    Smoke gives a verdict on counts alone, which no profile changes: those are shown once.
    """
    if (counted := verdicts.get("smoke", "not run")) != "not run":
        return chip(counted, badge("paper", arithmetic=True))
    shown = {profile: verdicts.get(profile, "not run")}
    shown |= {name: verdict for name, verdict in verdicts.items() if verdict != "not run"}
    return " ".join(chip(verdict, badge(name)) for name, verdict in shown.items())


def _select(label: str, key: str, options: dict[str, str | None]) -> str:
    listed = "".join(f'<option value="{escape(o)}">{escape(name or o)}</option>' for o, name in options.items())
    return f'<label>{label} <select data-filter="{key}"><option value="">all</option>{listed}</select></label>'
