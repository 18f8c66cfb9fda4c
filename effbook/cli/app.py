"""The program: its commands, each in the room of its kind, and the one way in which a command fails."""

import io
import os
import sys
from typing import Annotated

import typer

from effbook.cli import book, cache, clusters, data, doctor, exhibits, failures, lab, recheck, runs
from effbook.places import expanded

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for room in (doctor, runs, clusters, exhibits, recheck, data, cache, book, lab):
    room.register_commands(app)


@app.callback()
def _top(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    """The companion to "Efficiency in Computer Vision: From Compute and Memory to Robustness"."""
    settle_folders()


def settle_folders() -> None:
    """Make the folders that the environment names absolute: notebooks and workers run in other folders than this."""
    for variable in ("EFFBOOK_DATA", "EFFBOOK_LOCAL", "EFFBOOK_MANIFESTS", "EFFBOOK_RECORDS", "EFFBOOK_WORK"):
        parts = os.environ.get(variable, "").split(os.pathsep if variable == "EFFBOOK_LOCAL" else "\0")
        if given := [str(expanded(variable, part)) for part in parts if part.strip()]:
            os.environ[variable] = os.pathsep.join(given)


def main(arguments: list[str] | None = None) -> None:
    """Run a command; every failure is one sentence on standard error, with a traceback only under --debug."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if os.environ.get("COLUMNS") == "0":  # some shells set it so where there is no terminal
        del os.environ["COLUMNS"]
    debug = "--debug" in arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without UTF-8 gets \u2026 for what it cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        status = app([word for word in arguments if word != "--debug"], prog_name="effbook", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        status = failures.interrupted() if status == failures.INTERRUPTED else status
    except KeyboardInterrupt:
        status = failures.interrupted()
    except BrokenPipeError:
        status = failures.closed()
    except Exception as error:
        status = failures.failed(error, debug)
    sys.exit(status if isinstance(status, int) else 0)
