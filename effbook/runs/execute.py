"""Running recipes: once each, under a lock, resumed after a kill, recorded whole or not at all."""

import hashlib
import importlib
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from effbook.errors import EffbookError
from effbook.files import leftovers, remove, write_atomically
from effbook.runs import cache, machine, records
from effbook.runs.code import DEVICES, Device, Sources
from effbook.runs.context import Context
from effbook.runs.profiles import check_profile
from effbook.runs.progress import Display, duration
from effbook.runs.recipe import Recipe, make
from effbook.runs.records import CostOf, Record


class RunsFailedError(EffbookError):
    """Some of several runs failed; the others are recorded."""


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
    with cache.holding(path, display):
        if (found := look()) is not None:  # another process wrote it while we waited
            return found
        for left in leftovers(path):
            remove(left)
        with display.live():
            return _compute(recipe, profile, fresh_since, display)


def _compute(recipe: Recipe, profile: str, fresh_since: datetime | None, display: Display) -> Record:
    code = {device: _code_of(recipe, device) for device in DEVICES}
    if recipe.datasets():
        from effbook import data

        for name in recipe.datasets():
            data.fetch(name, progress=not display.quiet)
    folder = work_folder(recipe, profile)
    fresh_since = _prepare(folder, " ".join(one for one, _ in code.values()), fresh_since, display)
    context = surroundings(profile, folder, display, fresh_since)
    with _PeakMemory() as peak:
        context.peak_bytes = lambda: peak.size_bytes
        result = recipe.run(context)
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


def surroundings(profile: str, folder: Path, display: Display, fresh_since: datetime | None = None) -> Context:
    """A context that knows records: `record_of` gives those of the profile, and runs what is missing."""

    def needed(recipe: Recipe) -> Record:
        return current(recipe, profile=profile, fresh_since=fresh_since, display=display)

    return Context(profile, folder, display, fresh_since, current=needed)


def _code_of(recipe: Recipe, device: Device) -> tuple[str, dict[str, str]]:
    """The fingerprint of a recipe's code, and the hashes of the modules that it covers."""
    sources = Sources()
    return sources.fingerprint(recipe.modules(), device), sources.listing(recipe.modules(), device)


def work_folder(recipe: Recipe, profile: str) -> Path:
    """Where a run keeps its checkpoints: in $EFFBOOK_WORK or the user's cache, one for each record's path."""
    where = hashlib.sha256(str(records.records_folder().resolve()).encode()).hexdigest()[:8]
    return cache.work_root() / f"{profile}-{recipe.name}-{recipe.key}-{where}"


def _prepare(folder: Path, code: str, fresh_since: datetime | None, display: Display) -> datetime | None:
    """Make the work folder, emptied unless what is in it comes from the same code, packages and device.

    A fresh run goes on only from an interrupted fresh run: it is to be fresh from its first step. Returns since when
    the run is fresh: for one that goes on, since the interrupted one was asked for.
    """
    stamp = folder / "stamp.json"
    wanted = {"fingerprint": code, "packages": machine.packages(), "device": machine.device()}
    if folder.exists():
        try:
            found = json.loads(stamp.read_text())
            since = datetime.fromisoformat(found.pop("fresh_since")) if found.get("fresh_since") else None
        except (OSError, ValueError, AttributeError):
            found, since = {}, None
        found.pop("fresh_since", None)
        if found == wanted and (since or not fresh_since):
            return since
        if found != wanted:
            display.say("an interrupted run was made by other code, packages or device; it starts anew")
        shutil.rmtree(folder)
    told = wanted | {"fresh_since": fresh_since.isoformat() if fresh_since else None}
    write_atomically(stamp, json.dumps(told))
    return fresh_since


class _PeakMemory:
    """The highest resident memory of this process while the body runs, looked at ten times a second."""

    def __enter__(self) -> "_PeakMemory":
        self._process, self._stop = psutil.Process(), threading.Event()
        self.size_bytes, self.gpu_bytes = self._process.memory_info().rss, None
        if _cuda() is not None:
            _cuda().reset_peak_memory_stats()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            self.size_bytes = max(self.size_bytes, self._process.memory_info().rss)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.size_bytes = max(self.size_bytes, self._process.memory_info().rss)
        if _cuda() is not None:
            self.gpu_bytes = _cuda().max_memory_allocated()


def _cuda() -> Any:
    """torch.cuda if torch was imported and there is a GPU; torch isn't imported just to ask."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None


def execute_all(
    pairs: Sequence[tuple[Recipe, str]], *, jobs: int = 1, fresh: bool = False, quiet: bool = False
) -> list[Record]:
    """The records of several (recipe, profile), in order, `jobs` at a time in processes of their own.

    What is recorded is not run again, unless `fresh`. A run that fails doesn't stop the others; RunsFailedError tells
    at the end, with the first failure as its cause. `quiet`: one line for each finished run, no bars.
    """
    if jobs < 1:
        raise EffbookError(f"--jobs {jobs} is below 1", "give 1 or more")
    display = Display()
    done: dict[tuple[Recipe, str], Record] = {}
    for recipe, profile in () if fresh else pairs:
        if (found := records.find(recipe, profile)) is not None:
            done[recipe, profile] = found
    to_do = [pair for pair in dict.fromkeys(pairs) if pair not in done]
    if done:
        stale = sum(records.is_stale(record) for record in done.values())
        note = f", {stale} of them stale: --fresh recomputes them" if stale else ""
        display.say(f"{len(done)} of {len(done) + len(to_do)} runs are recorded{note}")
    since = datetime.now(UTC) if fresh else None  # of the whole batch: runs that share a training train it once
    failures: list[tuple[Recipe, Exception]] = []
    start, planned, spent = time.monotonic(), sum(recipe.cost().seconds for recipe, _ in to_do), 0.0
    with nullcontext() if quiet or not to_do else display.live():
        for count, (pair, outcome) in enumerate(_outcomes(to_do, jobs, since, quiet, display), 1):
            recipe, profile = pair
            spent += recipe.cost().seconds
            left = (time.monotonic() - start) / max(spent, 1e-9) * (planned - spent)
            line = f"[{count}/{len(to_do)}] {recipe.name} {recipe.key} seed {recipe.seed} ({profile}): "
            if isinstance(outcome, Exception):
                failures.append((recipe, outcome))
                line += f"failed: {outcome}"
            else:
                done[pair] = outcome
                line += f"recorded, {duration(outcome.cost.wall_seconds)}"
            display.say(f"{line}, {duration(left)} left" if count < len(to_do) else line)
    if failures:
        recipe, first = failures[0]
        if len(to_do) == 1:
            raise first
        why = f"{first}".rstrip(".") or type(first).__name__
        raise RunsFailedError(
            f"{len(failures)} of {len(to_do)} runs failed, the first ({recipe.name} {recipe.key}) because {why}",
            "what was finished is recorded: correct the cause and call again",
        ) from first
    return [done[pair] for pair in pairs]


def _outcomes(
    pairs: list[tuple[Recipe, str]], jobs: int, fresh_since: datetime | None, quiet: bool, display: Display
) -> Iterator[tuple[tuple[Recipe, str], Record | Exception]]:
    if jobs == 1 or len(pairs) <= 1:
        inner = Display(quiet=True) if quiet else display
        for recipe, profile in pairs:
            try:
                yield (recipe, profile), execute(recipe, profile=profile, fresh_since=fresh_since, display=inner)
            except Exception as error:
                yield (recipe, profile), error
        return
    from joblib import Parallel, delayed

    jobs = min(jobs, len(pairs))
    threads = max(1, machine.cores() // jobs)
    calls = (delayed(_in_worker)(type(r).__module__, r.name, r.fields, p, fresh_since, threads) for r, p in pairs)
    by_label = {(recipe.name, recipe.key, profile): (recipe, profile) for recipe, profile in pairs}
    for label, outcome in Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)(calls):
        yield by_label[label], outcome


def _in_worker(
    module: str, name: str, fields: dict, profile: str, fresh_since: datetime | None, threads: int
) -> tuple[tuple[str, str, str], Record | Exception]:
    """One run in a process of its own, to which a recipe travels as its name and fields."""
    import torch

    torch.set_num_threads(threads)
    importlib.import_module(module)
    recipe = make(name, **fields)
    label = (name, recipe.key, profile)
    try:
        return label, execute(recipe, profile=profile, fresh_since=fresh_since, quiet=True)
    except EffbookError as error:
        return label, EffbookError(error.cause, error.remedy)
    except Exception as error:  # whatever it is, it must be able to travel back
        return label, RuntimeError(f"{type(error).__name__}: {error}")
