"""Recheck: does today's code still give the numbers of records that older code made?

Every stale record belongs to a group (recipe class, fingerprint) and in it to a kind (`attest.kind_of`). For each kind
a probe, the recipe of one of its records capped to seconds, is run twice on this machine: by the code of a commit that
has the record's fingerprint, in a git worktree, and by the code that is here. Runs of seconds are run whole, and all of
a group. All metrics and series that are not times or memory are compared: to the bit, as each runs on one thread on
the CPU, and to 1e-6 on a GPU. What agrees and what does not is written down as attestations; records are not touched.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from effbook.errors import EffbookError
from effbook.runs import attest, machine, records
from effbook.runs.attest import Attestation, kind_of
from effbook.runs.code import Sources, here
from effbook.runs.records import Record
from effbook.runs.worktrees import Worktrees

GPU_TOLERANCE = 1e-6
BATCH = 8  # probes to one process: enough to pay for its start, few enough to keep all cores busy

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Stale records of one recipe class that the same code made."""

    name: str
    chapter: str
    fingerprint: str
    records: tuple[Record, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.fingerprint[:8]}"


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One recipe to be run by both codes, for the records of a kind."""

    group: Group
    commit: str
    record: Record
    cap: dict[str, Any]

    @property
    def fields(self) -> dict[str, Any]:
        """Of the recipe that is run."""
        return self.record.recipe.fields | self.cap


@dataclass(frozen=True, kw_only=True)
class Unchecked:
    """A group that could not be compared, and why; its records stay stale."""

    group: Group
    why: str


def stale_groups(found: Sequence[Record], *, again: bool = False, sources: Sources | None = None) -> list[Group]:
    """The groups of those records that are stale, or with `again` also of those that are rechecked."""
    sources, groups = sources or here(), {}
    wanted = ("stale", "rechecked") if again else ("stale",)
    for record in {record.key: record for record in found}.values():  # two profiles may share a run
        if records.standing(record, sources) in wanted:
            known = (record.recipe.name, record.recipe.system, record.provenance.fingerprint)
            groups.setdefault(known, []).append(record)
    return [
        Group(name=name, chapter=chapter, fingerprint=old, records=tuple(sorted(of, key=lambda record: record.key)))
        for (name, chapter, old), of in sorted(groups.items())
    ]


def recheck(groups: Sequence[Group], *, jobs: int = 2, say: Say = print) -> tuple[list[Attestation], list[Unchecked]]:
    """Compare every group, write the attestations, and return them with what could not be compared.

    `jobs` processes run at a time, each on one thread. What is written stays when a recheck is stopped, and a later one
    goes on with what is left.
    """
    root = machine.repository()
    if root is None:
        raise EffbookError("effbook runs without its checkout, so there is no older code", "recheck in a clone of it")
    attestations, unchecked, start = [], [], time.monotonic()

    def note(batch: Sequence[Probe], outcomes: list[Attestation]) -> None:
        attest.write(records.records_folder(), outcomes)
        attestations.extend(outcomes)
        say(f"{batch[0].group}: {told(outcomes)}, {(time.monotonic() - start) / 60:.1f} min")

    with Worktrees(root) as trees, ThreadPoolExecutor(jobs) as pool:
        waiting = []
        for group in groups:
            try:
                probes = _probes(group, _origin(group, trees))
            except EffbookError as error:
                unchecked.append(Unchecked(group=group, why=str(error)))
                say(f"{group}: {error}")
                continue
            size = BATCH if probes[0].cap else len(probes)  # a kind is never parted
            for batch in (probes[i : i + size] for i in range(0, len(probes), size)):
                older = pool.submit(_run, batch, trees.folder(batch[0].commit), trees)
                waiting.append((batch, older, pool.submit(_run, batch, root, trees)))
        doubted = []
        for batch, older, newer in waiting:
            outcomes = _compared(batch, older.result(), newer.result())
            if all(one.agrees for one in outcomes):
                note(batch, outcomes)
                continue
            # a process that compiles its kernels may round otherwise than one that finds them compiled
            trees_of_both = (trees.folder(batch[0].commit), root)
            doubted.append((batch, [pool.submit(_run, batch, tree, trees) for tree in trees_of_both]))
        for batch, (older, newer) in doubted:
            note(batch, _compared(batch, older.result(), newer.result()))
    return attestations, unchecked


def told(outcomes: Sequence[Attestation]) -> str:
    """What came out for a group, in a line."""
    agreeing = sum(one.agrees for one in outcomes)
    line = f"{agreeing} of {len(outcomes)} kinds agree in {sum(one.compared for one in outcomes)} numbers"
    differing = [one for one in outcomes if not one.agrees]
    if differing:
        names = ", ".join(sorted({name for one in differing for name in one.differing})[:4])
        sizes = [one.largest for one in differing if one.largest is not None]
        line += f"; others differ in {names}" + (f" by up to {max(sizes):.3g}" if sizes else "")
    return line


def changes(record: Record, sources: Sources | None = None) -> dict[str, str]:
    """What differs between the code that made a record and the code that is here: module -> changed, new or gone.

    Modules are told apart by what they define, so one that has only moved is not among them. EffbookError where the
    record's code was never listed.
    """
    path = records.code_path(record.provenance.fingerprint)
    if not path.exists():
        commit = (record.provenance.commit or "an unknown commit")[:10]
        raise EffbookError(f"the modules of {commit} are not listed", "'effbook recheck' lists them")
    old = json.loads(path.read_text(encoding="utf-8"))
    modules = record.make_recipe().modules()
    new = (sources or here()).listing(modules, record.provenance.accelerator)
    before, after = set(old.values()), set(new.values())
    found = {module: "changed" if module in old else "new" for module, own in new.items() if own not in before}
    return found | {module: "gone" for module, own in old.items() if own not in after and module not in found}


# ------------------------------------------------------------------------------------------- what is run


def _probes(group: Group, commit: str) -> list[Probe]:
    """One probe a kind, of its record with the lowest key; every record where a run takes no more than a probe."""
    chosen: dict[str, Record] = {}
    capped = {}
    for record in group.records:
        cap = {k: list(v) if isinstance(v, tuple) else v for k, v in record.make_recipe().probe().items()}
        capped[record.key] = cap
        place = json.dumps(kind_of(record.recipe.fields), sort_keys=True) if cap else record.key
        chosen.setdefault(place, record)
    return [Probe(group=group, commit=commit, record=record, cap=capped[record.key]) for record in chosen.values()]


def _run(probes: Sequence[Probe], tree: Path, trees: Worktrees) -> list[dict[str, Any]]:
    """What the code in `tree` gives for each probe: {"metrics", "series"} or {"error"}."""
    group, gpu = probes[0].group, probes[0].record.provenance.accelerator == "cuda"
    answers = trees.ask(tree, group.name, group.chapter, [probe.fields for probe in probes], run=True, gpu=gpu)
    failed = {"error": answers[-1].get("error", "it gave no answer") if answers else "it gave no answer"}
    results = answers[1:][: len(probes)]
    return results + [failed] * (len(probes) - len(results))


def _origin(group: Group, trees: Worktrees) -> str:
    """A commit whose code has the group's fingerprint, and note which modules that covers.

    The commit of a record of a clean tree has it. Where all trees were dirty, what was written then may have been
    committed soon after. EffbookError where no commit has it.
    """
    own = sorted(group.records, key=lambda record: (record.provenance.dirty, record.provenance.created))
    commits = dict.fromkeys(record.provenance.commit for record in own if record.provenance.commit)
    clean = {record.provenance.commit for record in own if record.provenance.dirty is False}
    candidates = [commit for commit in commits if commit in clean] or list(commits)
    first = sorted(candidates, key=lambda commit: not trees.has(commit))[:3]  # one checkout can serve many groups
    later = dict.fromkeys(commit for start in first[:1] for commit in trees.later(start))
    for commit in dict.fromkeys([*first, *later]):
        fields = [group.records[0].recipe.fields]
        answers = trees.ask(trees.folder(commit), group.name, group.chapter, fields, run=False)
        if answers and answers[0].get("fingerprint") == group.fingerprint:
            package = trees.folder(commit) / "effbook"
            modules = tuple(answers[0]["modules"])
            records.keep_code(group.fingerprint, Sources(package).listing(modules))
            return commit
    dirty = "; all its records come from a dirty tree" if not clean else ""
    raise EffbookError(f"no commit has the code that made {group}{dirty}", "recompute with --fresh")


# ------------------------------------------------------------------------------------------- the comparison


def _compared(probes: Sequence[Probe], before: list[dict], after: list[dict]) -> list[Attestation]:
    """One attestation a kind."""
    group = probes[0].group
    by_kind: dict[str, list[tuple[Probe, dict, dict]]] = {}
    for probe, old, new in zip(probes, before, after, strict=True):
        place = json.dumps(kind_of(probe.record.recipe.fields), sort_keys=True)
        by_kind.setdefault(place, []).append((probe, old, new))
    commit, dirty = machine.commit()
    outcomes = []
    for place, runs in by_kind.items():
        record = runs[0][0].record
        tolerance = 0.0 if record.provenance.accelerator == "cpu" else GPU_TOLERANCE
        varying = record.make_recipe().varying
        found = [differences(old, new, varying=varying, tolerance=tolerance) for _, old, new in runs]
        names = sorted({name for one in found for name in one.differing})
        sizes = [one.largest for one in found]
        outcomes.append(
            Attestation(
                recipe=group.name,
                kind=json.loads(place),
                old=group.fingerprint,
                new=records.current_fingerprint(record),
                commit=runs[0][0].commit,
                agrees=not names,
                largest=None if None in sizes else max(sizes),
                differing=tuple(names),
                compared=sum(one.compared for one in found),
                probe=runs[0][0].cap,
                keys=tuple(probe.record.key for probe, _, _ in runs),
                tolerance=tolerance,
                here=commit,
                dirty=dirty,
                device=machine.device(),
                packages=machine.packages(),
                created=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        )
    return outcomes


@dataclass(frozen=True)
class Differences:
    """Between two runs: the largest in any number, None where they differ in form; where; of how many numbers."""

    largest: float | None
    differing: tuple[str, ...]
    compared: int


def differences(old: dict, new: dict, *, varying: Sequence[str] = (), tolerance: float = 0.0) -> Differences:
    """Compare the metrics and series of two runs, but those that vary; a run with an error agrees with nothing."""
    if "error" in old or "error" in new:
        return Differences(None, (old.get("error") or new["error"],), 0)
    largest, differing, compared = 0.0, [], 0
    for what in ("metrics", "series"):
        for name in sorted({*old[what], *new[what]} - set(varying)):
            if name not in old[what] or name not in new[what]:
                largest, differing = None, [*differing, name]
                continue
            pair = [side[what][name] for side in (old, new)]
            a, b = (value if isinstance(value, list) else [value] for value in pair)
            if len(a) != len(b) or [x is None for x in a] != [x is None for x in b]:
                largest, differing = None, [*differing, name]
                continue
            numbers = [(x, y) for x, y in zip(a, b, strict=True) if x is not None]
            apart = max((abs(x - y) for x, y in numbers), default=0.0)
            compared += len(numbers)
            largest = None if largest is None else max(largest, apart)
            if not all(math.isclose(x, y, rel_tol=tolerance, abs_tol=tolerance) for x, y in numbers):
                differing.append(name)
    return Differences(largest, tuple(differing), compared)
