"""How a command fails: one sentence on standard error, and an exit status above 0."""

import typer

from effbook.errors import EffbookError


def failed(error: Exception, debug: bool) -> int:
    """Print the sentence and give the exit status: 2 for a mistyped command line, 1 otherwise."""
    if hasattr(error, "format_message"):  # a usage error of the command-line library
        message = " ".join(error.format_message().split())
        if message:
            typer.echo(f"effbook: {message.rstrip('.')}; see 'effbook --help'.", err=True)
        return 2
    if debug:
        import traceback

        traceback.print_exception(error)
    elif isinstance(error, EffbookError):
        typer.echo(f"effbook: {error}", err=True)
    else:
        what = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
        typer.echo(f"effbook: unexpected {what}; call again with --debug for the traceback.", err=True)
    return 1
