"""Several runs, here one after another or some at a time, or on a cluster; one that fails stops no other."""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime

from effbook.errors import EffbookError
from effbook.runs import local, machine, records
from effbook.runs.code import here
from effbook.runs.execute import execute
from effbook.runs.local import Pair
from effbook.runs.plan import seconds_of
from effbook.runs.progress import Display, duration
from effbook.runs.recipe import Recipe
from effbook.runs.records import Record


class RunsFailedError(EffbookError):
    """Some of several runs failed; the others are recorded."""


def execute_all(
    pairs: Sequence[Pair], *, jobs: int = 1, on: str = "", fresh: bool = False, quiet: bool = False
) -> list[Record]:
    """The records of several (recipe, profile), in order, `jobs` at a time in processes of their own.

    `on` names another launcher: "ray", or "ray:ADDRESS" of a cluster, which knows itself how many go at a time.

    What is recorded is not run again, unless `fresh`. A run that fails doesn't stop the others; RunsFailedError tells
    at the end, with the first failure as its cause. `quiet`: one line for each finished run, no bars.
    """
    if jobs < 1:
        raise EffbookError(f"--jobs {jobs} is below 1", "give 1 or more")
    if on and not re.fullmatch(r"ray(:.+)?", on):
        raise EffbookError(f"--on {on} is no launcher", "give ray, or ray:ADDRESS of a cluster")
    display = Display()
    done: dict[Pair, Record] = {}
    for recipe, profile in () if fresh else pairs:
        if (found := records.find(recipe, profile)) is not None:
            done[recipe, profile] = found
    to_do = [pair for pair in dict.fromkeys(pairs) if pair not in done]
    if done:
        sources = here()
        stale = sum(records.is_stale(record, sources) for record in done.values())
        note = f", {stale} of them stale: --fresh recomputes them" if stale else ""
        display.say(f"{len(done)} of {len(done) + len(to_do)} runs are recorded{note}")
    since = datetime.now(UTC) if fresh else None  # of the whole batch: runs that share a training train it once
    failures: list[tuple[Recipe, Exception]] = []
    seconds = {pair: max(1.0, estimate) for pair, estimate in seconds_of(to_do).items()}  # a kept one is read in 0
    start, planned, spent = time.monotonic(), sum(seconds.values()), 0.0
    with nullcontext() if quiet or not to_do else display.live():
        for count, (pair, outcome) in enumerate(_outcomes(to_do, jobs, on, since, quiet, display), 1):
            recipe, profile = pair
            spent += seconds[pair]
            left = (time.monotonic() - start) / spent * (planned - spent)
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
    pairs: list[Pair], jobs: int, on: str, fresh_since: datetime | None, quiet: bool, display: Display
) -> Iterator[tuple[Pair, Record | Exception]]:
    if on:
        from effbook.runs import on_ray

        yield from on_ray.outcomes(pairs, on.partition(":")[2], fresh_since)
        return
    if len(pairs) > 1 and (jobs > 1 or len(machine.cards()) > 1):
        yield from local.outcomes(pairs, min(jobs, len(pairs)), fresh_since)
        return
    inner = Display(quiet=True) if quiet else display
    for recipe, profile in pairs:
        try:
            yield (recipe, profile), execute(recipe, profile=profile, fresh_since=fresh_since, display=inner)
        except Exception as error:
            yield (recipe, profile), error
