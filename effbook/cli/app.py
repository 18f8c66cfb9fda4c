"""The program: its commands, each in the room of its kind, and the one way in which a command fails."""

import sys
from typing import Annotated

import typer

from effbook.cli import book, data, doctor, exhibits, recheck, runs
from effbook.cli.failures import failed

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for room in (doctor, runs, exhibits, recheck, data, book):
    room.register_commands(app)


@app.callback()
def _top(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    """The companion to "Efficiency in Computer Vision: From Compute and Memory to Robustness"."""


def main(arguments: list[str] | None = None) -> None:
    """Run a command; every failure is one sentence on standard error, with a traceback only under --debug."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    try:
        status = app([word for word in arguments if word != "--debug"], prog_name="effbook", standalone_mode=False)
    except Exception as error:
        status = failed(error, debug)
    sys.exit(status if isinstance(status, int) else 0)
