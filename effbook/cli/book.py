"""The commands for the book: book build, book serve."""

from typing import Annotated

import typer

from effbook.cli.options import Profile

book_app = typer.Typer(no_args_is_help=True, help="The book: build it, look at it.")


def register_commands(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.add_typer(book_app, name="book")


@book_app.command()
def build(
    profile: Profile = "mini",
    jobs: Annotated[
        int | None, typer.Option(help="Notebooks that run at a time.", show_default="2, or the cores")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run notebooks again that nothing has changed for.")] = False,
) -> None:
    """Run the notebooks and build the site; ends with its path."""
    from effbook.book import site
    from effbook.runs.profiles import check_profile

    typer.echo(site.build(check_profile(profile), jobs=jobs, fresh=fresh))


@book_app.command()
def serve() -> None:
    """Serve the built site on this machine."""
    from effbook.book import site

    site.serve()
