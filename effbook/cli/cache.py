"""The commands for what runs keep beside their records: cache, cache prune."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from effbook.runs.prune import Item

cache_app = typer.Typer(invoke_without_command=True, help="What runs keep beside their records: look at it, prune it.")

EARLIER = ("compgs-trained",)  # where earlier versions kept trained scenes, in the folder of data


def register_commands(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.add_typer(cache_app, name="cache")


@cache_app.callback()
def show(context: typer.Context) -> None:
    """Kept results, interrupted runs and leftovers: how large, of which recipe, made when, and by which code."""
    if context.invoked_subcommand is None:
        from effbook.cli import tables

        tables.show_cache(_listed())


@cache_app.command()
def prune(
    everything: Annotated[bool, typer.Option("--all", help="Also what runs would take.")] = False,
) -> None:
    """Remove what other code or packages made and what killed processes left; records stay."""
    from effbook.cli.tables import size
    from effbook.runs import prune as pruning

    removed, left = pruning.prune(_listed(), everything=everything)
    for item, size_bytes in removed:
        typer.echo(f"{size(size_bytes):>9}  {item.state}: {item.what} {item.recipe}".rstrip())
    for item in left:
        typer.echo(f"{item.path} is in use, and was left.")
    typer.echo(f"{len(removed)} things removed, {size(sum(size_bytes for _, size_bytes in removed))} freed.")


def _listed() -> "list[Item]":
    from effbook import data, experiments
    from effbook.runs.prune import listed

    experiments.load()
    folder = data.cache_folder()
    return listed(data=folder, earlier=[folder / name for name in EARLIER])
