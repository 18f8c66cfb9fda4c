"""The commands about records of older code: stale, recheck."""

from typing import TYPE_CHECKING, Annotated

import typer

from effbook.cli.options import Jobs
from effbook.errors import EffbookError

if TYPE_CHECKING:
    from effbook.runs.code import Sources
    from effbook.runs.recheck import Group
    from effbook.runs.records import Record

What = Annotated[
    list[str] | None, typer.Argument(metavar="[WHAT]...", help="Exhibits, systems, recipes; all without any.")
]


def register_commands(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for command in (stale, recheck):
        app.command()(command)


def stale(what: What = None) -> None:
    """Records that other code made: which modules differ since, and what the last recheck found."""
    from effbook.runs.code import here
    from effbook.runs.recheck import stale_groups

    sources = here()
    groups = stale_groups(_records(what), sources=sources)
    for group in groups:
        _show(group, sources)
    count = sum(len(group.records) for group in groups)
    typer.echo(f"{count or 'No'} record{' is' if count == 1 else 's are'} stale.")


def _show(group: "Group", sources: "Sources") -> None:
    """A group: how many, of which commit, what has changed since, and what a recheck said."""
    from effbook.runs import records
    from effbook.runs.recheck import changes, told

    commits = sorted({(record.provenance.commit or "unknown")[:10] for record in group.records})
    typer.echo(f"{group.name}: {len(group.records)} records of code {group.fingerprint} ({', '.join(commits)})")
    try:
        for module, how in changes(group.records[0], sources).items():
            typer.echo(f"  {how}: {module}")
    except EffbookError as error:
        typer.echo(f"  {error}")
    found = {id(one): one for record in group.records if (one := records.attestation(record, sources)) is not None}
    typer.echo(f"  rechecked: {told(list(found.values()))}" if found else "  not rechecked: 'effbook recheck'")


def recheck(
    what: What = None,
    again: Annotated[bool, typer.Option("--again", help="Also what an earlier recheck attests already.")] = False,
    jobs: Jobs = 2,
) -> None:
    """Run a probe of each kind of stale record by the code that made it and by today's, and compare to the bit."""
    from effbook.runs.recheck import recheck as compare
    from effbook.runs.recheck import stale_groups

    groups = stale_groups(_records(what), again=again)
    if not groups:
        typer.echo("Nothing is stale.")
        return
    attestations, unchecked = compare(groups, jobs=jobs, say=typer.echo)
    differing = [one for one in attestations if not one.agrees]
    if differing or unchecked:
        raise EffbookError(
            f"{len(differing)} of {len(attestations)} kinds of records differ, {len(unchecked)} groups have no code",
            "they stay stale: 'effbook stale' says by how much, 'effbook run --fresh' recomputes",
        )


def _records(what: list[str] | None) -> "list[Record]":
    """The records, under any profile, of what the words stand for."""
    from effbook import exhibits
    from effbook.runs import records
    from effbook.runs.profiles import PROFILES

    recipes = {}
    for word in what or ["all"]:
        failures = []
        for profile in PROFILES:
            try:
                recipes |= {(recipe, profile): None for recipe in exhibits.recipes_of(word, profile)}
            except EffbookError as error:
                failures.append(error)
        if len(failures) == len(PROFILES):
            raise failures[0]
    return [found for recipe, profile in recipes if (found := records.find(recipe, profile)) is not None]
