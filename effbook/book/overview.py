"""The generated list of all exhibits: states, verdicts and links, with a filter that works in the browser alone."""

from markupsafe import Markup

from effbook.book.places import Places
from effbook.book.templating import rendered
from effbook.chapters import CHAPTERS, TITLES
from effbook.exhibits.html import badge, chip
from effbook.exhibits.listing import KINDS, Entry, tally


def exhibits_html(
    listed: list[Entry], *, profile: str, where: Places, root: str = "../", filters: bool = True
) -> Markup:
    """The overview as one HTML table, with counts and a filter that works in the browser alone.

    `listed` is what `effbook exhibits` prints; `root` leads from the page to the site's root.
    """
    rows = [_row(one, profile, where) for one in listed]
    if not filters:
        return rendered("overview.html", rows=rows, root=root, told=None)
    told = tally(listed, profile)
    named = {"kind": KINDS, "state": told["state"], "verdict": told["verdict"]}
    choices: dict[str, dict[str, str]] = {key: {word: word for word in words} for key, words in named.items()}
    choices["chapter"] = {name: TITLES[name] for name in CHAPTERS if name in {one.chapter for one in listed}}
    errata = sum(one.errata for one in listed)
    return rendered(
        "overview.html", rows=rows, root=root, told=told, choices=choices, errata=errata, badge=badge(profile)
    )


def _row(one: Entry, profile: str, where: Places) -> dict[str, object]:
    """What the template shows of an exhibit; links are words with the place that they lead to, if any."""
    links = [("as printed", where.printed(one)), ("in its notebook", where.notebook(one))]
    links = [(word, place) for word, place in links if place]
    if one.errata:
        links.append((f"{one.errata} {'erratum' if one.errata == 1 else 'errata'}", where.errata(one)))
    return {
        "one": one,
        "state": one.profiles[profile].state,
        "behind": _state_text(one, profile),
        "verdicts": "|".join(dict.fromkeys(one.verdicts(profile))),
        "links": links,
        "claims": [{"chips": _chips(claim.verdicts, profile), "text": claim.text} for claim in one.claims],
    }


def _state_text(one: Entry, profile: str) -> str:
    """What stands behind the state: how many runs, or what it waits for."""
    count, counts = one.profiles[profile], one.profiles.get("paper")
    if count.state == "waiting":
        there = " Arithmetic of it is recorded." if counts and counts.recorded else ""
        return f"{one.waits_for or one.why or 'Some rows wait'}{there}"
    if not count.runs:
        return (one.why or "") if count.state in ("drawing", "no run") else "arithmetic"
    apart = "".join(f", {n} {word}" for word, n in (("rechecked", count.rechecked), ("stale", count.stale)) if n)
    rows = f", {count.rows_measured} of {count.rows} rows" if count.rows_measured < count.rows else ""
    return f"{count.recorded} of {count.runs} runs recorded{apart}{rows}"


def _chips(verdicts: dict[str, str], profile: str) -> Markup:
    """The verdict at this profile, and those that any other has come to, each with its badge.

    Smoke gives a verdict on counts alone, which no profile changes: those are shown once.
    """
    if (counted := verdicts.get("smoke", "not run")) != "not run":
        return chip(counted, badge("paper", arithmetic=True))
    shown = {profile: verdicts.get(profile, "not run")}
    shown |= {name: verdict for name, verdict in verdicts.items() if verdict != "not run"}
    return Markup(" ").join(chip(verdict, badge(name)) for name, verdict in shown.items())
