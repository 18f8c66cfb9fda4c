"""The commands that plan, run and measure: plan, run, bench."""

import sys
from typing import Annotated

import typer

from effbook.cli.options import Jobs, Profile, Quiet, Seeds, What
from effbook.errors import EffbookError


def register_commands(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for command in (plan, run, bench):
        app.command()(command)


def plan(
    what: What,
    profile: Profile = "mini",
    seeds: Seeds = None,
    each: Annotated[
        bool, typer.Option("--each", help="A line for each run, with its key, in place of its row.")
    ] = False,
) -> None:
    """The runs to do, recorded or not, with an estimate of hours, GPU memory and disk."""
    from effbook.cli import tables
    from effbook.exhibits.register import places_of
    from effbook.runs.plan import plan as planned

    found = planned(pairs_of(what, profile, seeds))
    tables.show_plan(found, profile, None if each else places_of(profile))


def run(
    what: What,
    profile: Profile = "mini",
    fresh: Annotated[bool, typer.Option("--fresh", help="Recompute; replaces records upon success.")] = False,
    seeds: Seeds = None,
    jobs: Jobs = 1,
    on: Annotated[str, typer.Option(metavar="ray[:ADDRESS]", help="Run on a Ray cluster, or one started here.")] = "",
    shard: Annotated[str, typer.Option(metavar="I/N", help="Only the I-th of N parts of the runs.")] = "",
    quiet: Quiet = False,
) -> None:
    """Run what is not recorded yet, and show the tables. A run that was interrupted goes on where it was."""
    from effbook import exhibits
    from effbook.runs import records
    from effbook.runs.batch import execute_all

    pairs = pairs_of(what, profile, seeds)
    if shard:
        pairs = _shard(pairs, shard)
    to_do = [pair for pair in pairs if fresh or records.find(*pair) is None]
    here = [] if on else to_do  # other machines look for themselves
    lacks = _lacks(here)
    _make_room([recipe for recipe, _ in here])
    missing = _missing_data([recipe for recipe, profile in here if (recipe, profile) not in lacks], quiet)
    unread = [pair for pair in to_do if pair not in lacks and missing.keys() & set(pair[0].datasets())]
    able = [pair for pair in pairs if pair not in lacks and pair not in unread]
    done = execute_all(able, jobs=jobs, on=on, fresh=fresh, quiet=quiet)
    for name in () if shard else _touched(what, {recipe for recipe, _ in able}, profile):
        exhibits.show_terminal(name, profile)
    if unread:
        name, first = next(iter(missing.items()))
        more = f"; {', '.join(other for other in missing if other != name)} neither" if len(missing) > 1 else ""
        raise EffbookError(f"{len(unread)} of {len(pairs)} runs were left out: {first.cause}{more}", first.remedy)
    if lacks:
        what_lacks = " and ".join(sorted({one for lack in lacks.values() for one in lack}))
        raise EffbookError(
            f"{len(lacks)} of {len(pairs)} runs were left out, as they need {what_lacks}",
            "run them on a machine that has it, or choose another profile",
        )
    if stale := sum(records.is_stale(record) for record in done):
        raise EffbookError(f"{stale} of the records were made by other code", "recompute them with --fresh")


def bench(
    system: Annotated[str | None, typer.Argument(help="A system, or exhibits; all without one.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 if a figure is missed.")] = False,
) -> None:
    """The ledger: speed, memory and bytes as ratios measured in one process, against the figures to reach."""
    from effbook import experiments
    from effbook.cli import tables
    from effbook.exhibits.bench import register_benches
    from effbook.runs import bench as ledger

    ledger.check_system(system)
    experiments.load()
    register_benches()
    lines = ledger.bench(system, say=lambda line: typer.echo(line, err=True))
    tables.show_ledger(lines)
    if check and (missed := [line.bench.name for line in lines if line.reached is False]):
        raise EffbookError(f"{len(missed)} figures are missed: {', '.join(missed)}", "see the table")


def _shard(pairs: list, text: str) -> list:
    """The runs of a shard, in words such as 2/8; a line says how many they are."""
    from effbook.runs import shards

    number, count = shards.parse(text)
    found = shards.shards(pairs, count)[number - 1]
    typer.echo(f"shard {text}: {len(found)} of {len(pairs)} runs", err=True)
    return found


def pairs_of(what: list[str], profile: str, seeds: int | None) -> list:
    """Every (recipe, profile) that the words stand for, once."""
    from effbook import exhibits
    from effbook.runs.profiles import check_profile, with_seeds

    recipes = [recipe for word in what for recipe in exhibits.recipes_of(word, check_profile(profile))]
    if seeds is not None:
        recipes = [seeded for recipe in recipes for seeded in with_seeds(recipe, tuple(range(seeds)))]
    if not recipes:
        raise EffbookError(f"{' '.join(what)} has no {profile} run", "see 'effbook exhibits'")
    return [(recipe, profile) for recipe in dict.fromkeys(recipes)]


def _lacks(pairs: list) -> dict:
    """What the machine lacks for each of the runs that it cannot do."""
    from effbook.runs import machine

    return {pair: lack for pair in pairs if (lack := machine.missing(pair[0].needs()))}


def _missing_data(to_do: list, quiet: bool) -> dict[str, EffbookError]:
    """Fetch the data of all runs before the first of them starts; what could not be had, and why."""
    from effbook import data

    failures = {}
    for name in sorted({name for recipe in to_do for name in recipe.datasets()}):
        try:
            data.fetch(name, progress=not quiet and sys.stderr.isatty())
        except EffbookError as error:
            failures[name] = error
    return failures


def _make_room(to_do: list) -> None:
    """Have the folders that the runs write to at hand before the first of them starts."""
    from effbook import data
    from effbook.places import ready
    from effbook.runs.cache import work_root
    from effbook.runs.records import records_folder

    folders = [records_folder(), work_root()] if to_do else []
    if any(recipe.datasets() for recipe in to_do):
        data.manifests()
        folders.append(data.cache_folder())
    for folder in folders:
        ready(folder)


def _touched(what: list[str], ran: set, profile: str) -> list[str]:
    """The exhibits that were asked for by name; where a word stands for more, those that the runs are part of."""
    from effbook import exhibits

    known = list(exhibits.register())
    if set(what) <= set(known):
        return [name for name in known if name in what]
    return [name for name in known if name in what or ran & _runs_of(name, profile)]


def _runs_of(name: str, profile: str) -> set:
    from effbook import exhibits

    try:
        return set(exhibits.recipes_of(name, profile))
    except EffbookError:  # an exhibit without a run under the profile
        return set()
