"""The commands for several machines: a script for Slurm, and records that come back from elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

from effbook.cli.options import Profile, Seeds, What
from effbook.errors import EffbookError

records_app = typer.Typer(no_args_is_help=True, help="Records: take those that were made elsewhere.")


def register_commands(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(slurm)
    app.add_typer(records_app, name="records")


@records_app.callback()
def _records() -> None:
    """Records: take those that were made elsewhere."""


def slurm(
    what: What,
    profile: Profile = "mini",
    seeds: Seeds = None,
    shards: Annotated[int, typer.Option(min=1, max=100_000, help="Into how many jobs the runs are shared out.")] = 8,
    hours: Annotated[int, typer.Option(min=1, max=10_000, help="Of one turn; a job takes as many as it needs.")] = 24,
) -> None:
    """A script that has Slurm do the runs: effbook slurm nola --profile paper > nola.sh; sh nola.sh"""
    from effbook.cli.runs import pairs_of
    from effbook.runs.slurm import script

    pairs = pairs_of(what, profile, seeds)
    command = ["effbook", "run", *what, "--profile", profile, *(["--seeds", str(seeds)] if seeds else []), "--quiet"]
    typer.echo(script(pairs, shards, command, hours=hours), nl=False)


@records_app.command()
def add(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder of records from another machine.")],
) -> None:
    """Take records from elsewhere, if their keys, data and code are those that belong here; what is here stays."""
    from effbook import experiments
    from effbook.runs import intake

    experiments.load()
    counts, refused = {"added": 0, "here": 0}, []
    for files in intake.records_in(folder):
        try:
            for state in intake.take(files).values():
                counts[state] += 1
        except EffbookError as error:
            refused.append(error)
            typer.echo(str(error), err=True)
    typer.echo(f"{counts['added']} records added, {counts['here']} were here, {len(refused)} refused.")
    if refused:
        raise EffbookError(f"{len(refused)} records were refused", "see the reasons above")
