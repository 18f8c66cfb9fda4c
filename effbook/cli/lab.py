"""The commands for labs: lab release, lab grade, lab band."""

from pathlib import Path
from typing import Annotated

import typer

from effbook.cli.options import Profile

lab_app = typer.Typer(no_args_is_help=True, help="The labs: hand one out, grade what comes back.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="cmsf, simreg, compgs, nola or slowformer.")]


def register_commands(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.add_typer(lab_app, name="lab")


@lab_app.command()
def release(
    name: Name,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("released"),
) -> None:
    """Make the zip for students and the instructor's notebook."""
    from effbook.book import labs

    for path in labs.release(name, out=out):
        typer.echo(path)


@lab_app.command()
def grade(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="NAME.ipynb, or NAME/ with one notebook, each.")],
    seed: Annotated[int, typer.Option(min=0, help="Your own: what the hidden checks draw from.")],
    lab: Annotated[str | None, typer.Option(help="Where the notebooks don't tell it.")] = None,
    profile: Profile = "mini",
    instructor: Annotated[
        Path | None, typer.Option(help="The instructor's notebook; by default the checkout's.")
    ] = None,
    limit_s: Annotated[
        float | None,
        typer.Option(min=1, help="Seconds of processor time a submission.", show_default="from the instructor's run"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write.", show_default="FOLDER-graded")] = None,
) -> None:
    """Grade a folder of submissions: points.csv, and a results.json for each."""
    from effbook.book import labs
    from effbook.runs.profiles import check_profile

    places = {"source": instructor, "out": out}
    labs.grade(folder, seed=seed, lab=lab, profile=check_profile(profile), limit_s=limit_s, say=typer.echo, **places)


@lab_app.command()
def band(
    name: Name,
    profile: Profile = "mini",
    seeds: Annotated[int, typer.Option(min=3, help="How many seeds to measure.")] = 5,
) -> None:
    """Measure the band of a lab's outcome anew, after a change of its notebook."""
    from effbook.book import labs
    from effbook.runs.profiles import check_profile

    low, high = labs.measure_band(name, profile=check_profile(profile), seeds=seeds)
    typer.echo(f"{name} under {profile}: {low:.2f} to {high:.2f}")
