"""The commands for the book: book build, book serve."""

import typer

from effbook.cli.options import Profile

book_app = typer.Typer(no_args_is_help=True, help="The book: build it, look at it.")


def register_commands(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.add_typer(book_app, name="book")


@book_app.command()
def build(profile: Profile = "mini") -> None:
    """Run the notebooks and build the site; ends with its path."""
    from effbook import book
    from effbook.runs.profiles import check_profile

    if (site := book.build(profile=check_profile(profile))) is not None:
        typer.echo(site)


@book_app.command()
def serve() -> None:
    """Serve the built site on this machine."""
    from effbook import book

    book.serve()
