"""The commands for data: data list, data fetch, data verify."""

import sys
from typing import Annotated

import typer

from effbook.cli.options import Quiet
from effbook.errors import EffbookError

data_app = typer.Typer(no_args_is_help=True, help="The data sets and weights: list, fetch, verify.")


def register_commands(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.add_typer(data_app, name="data")


@data_app.command("list")
def list_() -> None:
    """All manifests, and which are in the cache."""
    from effbook.cli import tables

    tables.show_data()


@data_app.command()
def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(help="Manifests; without names those of the mini profile.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Fetch data sets and weights into the cache, and verify them."""
    from effbook import data

    failures = []
    for name in names or _of_mini():
        try:
            path = data.fetch(name, progress=not quiet and sys.stderr.isatty(), recheck=bool(names))
            typer.echo(f"{name}: {path}")
        except EffbookError as error:
            if names and len(names) == 1:
                raise
            failures.append(name)
            typer.echo(f"effbook: {error}", err=True)
    if failures:
        raise EffbookError(f"{len(failures)} could not be fetched: {', '.join(failures)}", "see the lines above")


@data_app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="Manifests; without names all that are cached.")] = None,
) -> None:
    """Check cached files against their manifests."""
    from effbook import data

    damaged = []
    for name in names or [name for name in data.manifests() if data.is_cached(name)]:
        problems = data.verify(name)
        typer.echo(f"{name}: {'; '.join(problems) if problems else 'verified'}")
        damaged += [name] if any(not problem.startswith("unpinned") for problem in problems) else []
    if damaged:
        raise EffbookError(f"{', '.join(damaged)} did not verify", f"run 'effbook data fetch {' '.join(damaged)}'")


def _of_mini() -> list[str]:
    """The manifests that the mini profile reads."""
    from effbook import exhibits

    return sorted({name for recipe in exhibits.recipes_of("all", "mini") for name in recipe.datasets()})
