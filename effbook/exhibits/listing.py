"""The register as a list: each exhibit's state, runs and verdicts, as `effbook exhibits` and the book show it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from effbook.chapters import CHAPTERS, Chapter
from effbook.errors import EffbookError
from effbook.exhibits.claims import VERDICTS, Verdict, judgements
from effbook.exhibits.look import Look
from effbook.exhibits.measure import measured
from effbook.exhibits.register import register
from effbook.exhibits.schema import Exhibit
from effbook.exhibits.states import STATES, Progress, progress
from effbook.runs.profiles import PROFILES
from effbook.runs.recipe import nearest

KINDS = ("table", "figure", "prose")


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClaimEntry(_Frozen):
    """A claim with its verdict under each profile."""

    id: str
    text: str
    verdicts: dict[str, Verdict]


class Entry(_Frozen):
    """An exhibit with its state and its verdicts; `model_dump` gives what `effbook exhibits --json` prints."""

    id: str
    kind: Literal["table", "figure", "prose"]
    title: str
    section: str
    chapter: Chapter
    notebook: str
    reported: bool
    why: str | None
    waits_for: str | None
    systems: tuple[str, ...]
    profiles: dict[str, Progress]
    claims: tuple[ClaimEntry, ...]
    errata: int

    def verdicts(self, profile: str) -> list[Verdict]:
        """The verdicts of the claims under a profile."""
        return [claim.verdicts[profile] for claim in self.claims]


def entries(profiles: tuple[str, ...] = PROFILES, look: Look | None = None) -> list[Entry]:
    """Every exhibit of the register, in the book's order."""
    look = look or Look()
    return [_entry(found, profiles, look) for found in register().values()]


def _entry(found: Exhibit, profiles: tuple[str, ...], look: Look) -> Entry:
    judged = {profile: judgements(measured(found, profile, look), look) for profile in profiles}
    claims = [
        ClaimEntry(id=claim.id, text=claim.text, verdicts={profile: judged[profile][i].verdict for profile in profiles})
        for i, claim in enumerate(found.claims)
    ]
    return Entry(
        id=found.id,
        kind=found.kind,
        title=found.title,
        section=found.section,
        chapter=found.chapter,
        notebook=found.notebook,
        reported=found.reported,
        why=found.why,
        waits_for=found.waits_for,
        systems=found.systems,
        profiles={profile: progress(found, profile, look) for profile in profiles},
        claims=tuple(claims),
        errata=len(found.errata),
    )


def chosen(listed: list[Entry], profile: str, **words: str | None) -> list[Entry]:
    """Those of a list that fit the words: chapter, kind, state or verdict under a profile.

    Raises EffbookError with near names for a word that none of them can be.
    """
    known = {"chapter": CHAPTERS, "kind": KINDS, "state": STATES, "verdict": VERDICTS}
    for name, word in words.items():
        if word is not None and word not in known[name]:
            raise EffbookError(f"there is no {name} {word!r}", nearest(word, list(known[name])))

    def has(one: Entry, name: str) -> list[str]:
        if name == "verdict":
            return one.verdicts(profile)
        return [one.profiles[profile].state if name == "state" else getattr(one, name)]

    return [one for one in listed if all(word is None or word in has(one, name) for name, word in words.items())]


def tally(listed: list[Entry], profile: str) -> dict[str, dict[str, int]]:
    """How many of a list are of each kind and, numbered exhibits alone, in each state; how many claims, by verdict."""
    states = [one.profiles[profile].state for one in listed if one.kind != "prose"]
    verdicts = [verdict for one in listed for verdict in one.verdicts(profile)]
    kinds = [one.kind for one in listed]
    return {
        "kind": {kind: kinds.count(kind) for kind in KINDS},
        "state": {state: states.count(state) for state in STATES if state in states},
        "verdict": {verdict: verdicts.count(verdict) for verdict in VERDICTS if verdict in verdicts},
    }


def counts_of(listed: list[Entry], profile: str) -> list[str]:
    """The same in lines for people."""
    told = tally(listed, profile)
    tables, figures, prose = (told["kind"][kind] for kind in KINDS)
    apart = f"; counted apart, {prose} with numbers that stand in prose only" if prose else ""
    return [
        f"{tables + figures} exhibits: {tables} tables, {figures} figures{apart}",
        f"under {profile}: " + ", ".join(f"{n} {state}" for state, n in told["state"].items()),
        f"{sum(told['verdict'].values())} claims: " + ", ".join(f"{n} {word}" for word, n in told["verdict"].items()),
        f"{sum(one.errata for one in listed)} errata",
    ]


def runs_text(runs: Progress) -> str:
    """How far the runs are: "4 of 6, 1 stale"; "" where there are none."""
    if not runs.runs:
        return ""
    parts = [f"{runs.recorded} of {runs.runs}"]
    parts += [f"{n} {word}" for word, n in (("rechecked", runs.rechecked), ("stale", runs.stale)) if n]
    parts += [f"{runs.rows_measured} of {runs.rows} rows"] if runs.rows_measured < runs.rows else []
    return ", ".join(parts)
