"""Running recipes: once each, under a lock, resumed after a kill, recorded whole or not at all."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from effbook.errors import EffbookError
from effbook.files import write_atomically
from effbook.runs import cache, locks, machine, ranks, records
from effbook.runs.code import DEVICES, Device, here
from effbook.runs.context import Context
from effbook.runs.memory import PeakMemory
from effbook.runs.profiles import check_profile
from effbook.runs.progress import Display
from effbook.runs.recipe import Recipe
from effbook.runs.records import CostOf, Record


def execute(
    recipe: Recipe,
    *,
    profile: str,
    fresh: bool = False,
    fresh_since: datetime | None = None,
    quiet: bool = False,
    display: Display | None = None,
) -> Record:
    """The record of a recipe: the one that is there, or else that of a run now.

    A run that was killed goes on from its last checkpoint. `fresh` computes again, also what the run would take from a
    cache; the old record is replaced only when the new one is complete. `fresh_since` says since when something counts
    as fresh, now if not given: several runs that were asked for at once share what one of them has made. Another
    process that computes the same record is waited for, and its record returned.
    """
    display = display or Display(quiet=quiet)
    if fresh or fresh_since is not None:
        return current(recipe, profile=profile, fresh_since=fresh_since or datetime.now(UTC), display=display)
    found = _obtain(recipe, profile, lambda record: True, None, display)
    if records.is_stale(found):
        commit = (found.provenance.commit or "unknown")[:10]
        display.say(f"{recipe.name} {recipe.key}: recorded, stale (commit {commit}); --fresh recomputes")
    return found


def current(recipe: Recipe, *, profile: str, fresh_since: datetime | None, display: Display) -> Record:
    """The record of a recipe, if it is not stale and not older than `fresh_since`, or else that of a run now."""

    def stands(record: Record) -> bool:
        return cache.is_fresh(record.provenance.created, fresh_since) and not records.is_stale(record)

    return _obtain(recipe, profile, stands, fresh_since, display)


def _obtain(
    recipe: Recipe, profile: str, stands: Callable[[Record], bool], fresh_since: datetime | None, display: Display
) -> Record:
    """The record that is there, if it `stands`, or else that of a run under the record's lock."""
    path = records.path_of(recipe, check_profile(profile))

    def look() -> Record | None:
        try:
            found = records.find(recipe, profile)
        except EffbookError:  # a damaged one is replaced only by who asked for a fresh one
            if fresh_since is None:
                raise
            return None
        return found if found is not None and stands(found) else None

    if (found := look()) is not None:
        return found
    if lacks := machine.missing(recipe.needs()):
        raise EffbookError(
            f"{recipe.name} under {profile} needs {' and '.join(lacks)}, which this machine lacks",
            "run it on a machine that has it, or choose another profile",
        )
    with locks.holding(path, display):
        if (found := look()) is not None:  # another process wrote it while we waited
            return found
        records.clear(path)
        with locks.holding(work_folder(recipe, profile), display), display.live():  # other records' folders share it
            return _compute(recipe, profile, fresh_since, display)


def _compute(recipe: Recipe, profile: str, fresh_since: datetime | None, display: Display) -> Record:
    code = {device: _code_of(recipe, device) for device in DEVICES}
    if recipe.datasets():
        from effbook import data

        for name in recipe.datasets():
            data.fetch(name, progress=not display.quiet)
    folder = work_folder(recipe, profile)
    about = {
        "fingerprint": " ".join(one for one, _ in code.values()),
        "packages": machine.packages(),
        "device": machine.device(),
    }
    fresh_since = _prepare(folder, about, fresh_since, display)
    context = surroundings(profile, folder, display, fresh_since)
    with PeakMemory() as peak:
        context.peak_bytes = lambda: peak.size_bytes
        together = recipe.processes() > 1
        result = ranks.run_together(recipe, context, peak) if together else recipe.run(context)
    cost = CostOf(
        wall_seconds=round(context.seconds, 3),
        peak_memory_bytes=max(peak.size_bytes, context.peak_before_bytes),
        peak_gpu_bytes=peak.gpu_bytes,
        flops=result.flops,
        joules=result.joules,
    )
    fingerprint, modules = code[context.device_used]
    known = {"fingerprint": fingerprint, "modules": modules, "accelerator": context.device_used}
    record = records.write(recipe, profile, result, **known, cost=cost, taken=tuple(context.taken))
    shutil.rmtree(folder, ignore_errors=True)
    return record


def surroundings(
    profile: str, folder: Path, display: Display, fresh_since: datetime | None = None, *, kind: type[Context] = Context
) -> Context:
    """A context that knows records: `record_of` gives those of the profile, and runs what is missing."""

    def needed(recipe: Recipe) -> Record:
        return current(recipe, profile=profile, fresh_since=fresh_since, display=display)

    return kind(profile, folder, display, fresh_since, current=needed)


def _code_of(recipe: Recipe, device: Device) -> tuple[str, dict[str, str]]:
    """The fingerprint of a recipe's code, and the hashes of the modules that it covers."""
    sources = here()
    return sources.fingerprint(recipe.modules(), device), sources.listing(recipe.modules(), device)


def work_folder(recipe: Recipe, profile: str) -> Path:
    """Where a run keeps its checkpoints: in $EFFBOOK_WORK or the user's cache, wherever its record is to lie."""
    return cache.work_root() / f"{profile}-{recipe.name}-{recipe.key}"


def _prepare(folder: Path, about: dict[str, Any], fresh_since: datetime | None, display: Display) -> datetime | None:
    """Make the work folder, emptied unless what is in it is told to be about the same code, packages and device.

    A fresh run goes on only from an interrupted fresh run: it is to be fresh from its first step. Returns since when
    the run is fresh: for one that goes on, since the interrupted one was asked for.
    """
    stamp = folder / "stamp.json"
    if folder.exists():
        try:
            found = json.loads(stamp.read_text())
            since = datetime.fromisoformat(found.pop("fresh_since")) if found.get("fresh_since") else None
        except (OSError, ValueError, AttributeError):
            found, since = {}, None
        found.pop("fresh_since", None)
        if found == about and (since or not fresh_since):
            return since
        if found != about:
            display.say("an interrupted run was made by other code, packages or device; it starts anew")
        shutil.rmtree(folder)
    told = about | {"fresh_since": fresh_since.isoformat() if fresh_since else None}
    write_atomically(stamp, json.dumps(told))
    return fresh_since
