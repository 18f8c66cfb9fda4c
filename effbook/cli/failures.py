"""How a command fails: one sentence on standard error, and an exit status above 0."""

import contextlib
import os
import re
import sys

import typer

from effbook.errors import EffbookError, system_error

INTERRUPTED = 130  # as shells have it
_LONGEST_WORD, _LONGEST = 400, 2000


def failed(error: BaseException, debug: bool) -> int:
    """Print the sentence and give the exit status: 2 for a mistyped command line, 1 otherwise."""
    if hasattr(error, "format_message"):  # a usage error of the command-line library
        if message := error.format_message().strip():
            say(f"{_joined(message)}; see '{_command(error)} --help'.")
        return 2
    if debug:
        import traceback

        traceback.print_exception(error)
    else:
        say(str(_told(error)))
    return 1


def interrupted() -> int:
    """Say that the work can go on, and give the exit status."""
    say("interrupted; the same command again goes on with what was not finished.")
    return INTERRUPTED


def closed() -> int:
    """Nobody reads on (`effbook exhibits | head`): leave without a word, also when Python flushes at its end."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return 1


def say(sentence: str) -> None:
    """One line on standard error: no control characters, and nothing longer than anyone reads."""
    line = "".join(letter if letter.isprintable() else " " for letter in sentence)
    line = re.sub(rf"\S{{{_LONGEST_WORD},}}", lambda found: f"{found[0][:100]}…{found[0][-100:]}", line)
    line = " ".join(line.split())
    typer.echo(f"effbook: {line if len(line) <= _LONGEST else f'{line[:_LONGEST]}…'}", err=True)


def _told(error: BaseException) -> EffbookError:
    """Cause and remedy of any error."""
    if isinstance(error, EffbookError):
        return error
    if isinstance(error, OSError):
        return system_error(error)
    if isinstance(error, MemoryError):
        return EffbookError("the memory of this machine is used up", "close other programs, or use fewer --jobs")
    if isinstance(error, ModuleNotFoundError) and error.name:
        from effbook.cli.tiers import remedy

        return EffbookError(f"the package {error.name.partition('.')[0]} is not installed", remedy(error.name))
    what = f"{type(error).__name__}: {error}".rstrip(".: ")
    return EffbookError(f"unexpected {what}", "call again with --debug for the traceback")


def _joined(message: str) -> str:
    """A message of the command-line library as a clause: its sentences joined, its last stop left out."""
    words = " ".join(message.split())
    return re.sub(r"[.?!] +(?=[A-Z])", "; ", words).rstrip(".?!")


def _command(error: BaseException) -> str:
    context = getattr(error, "ctx", None)
    return getattr(context, "command_path", None) or "effbook"
