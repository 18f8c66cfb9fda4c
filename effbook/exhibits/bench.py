"""The ledger of the commands that show the register: how long each takes from its call to its end."""

import functools
import resource
import statistics
import subprocess
import sys

from effbook.errors import EffbookError
from effbook.runs.bench import Ratio, register_bench

COMMANDS = (
    ("exhibits",),
    ("show", "tab-3.12"),
    ("reported", "tab-3.12", "--csv"),
    ("measured", "tab-3.12", "--csv"),
    ("plan", "tab-3.12"),
)
LIMIT_S = 2.0  # of processor time: on a machine at rest that is what one waits, and others' work does not count
REPEATS = 3


def register_benches() -> None:
    """Add a line to the ledger for each command."""
    for command in COMMANDS:
        register_bench("exhibits", f"effbook {' '.join(command)}", functools.partial(took, command), "<= 1")


def took(command: tuple[str, ...]) -> Ratio:
    """Processor seconds of a command in a process of its own over what it may take; EffbookError if it fails."""
    times = [_seconds(command) for _ in range(REPEATS)]
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    limit = LIMIT_S
    return Ratio(value=middle / limit, low=low / limit, high=high / limit, a=middle, b=limit, unit="s", pairs=REPEATS)


def _seconds(command: tuple[str, ...]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = "from effbook.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    if done.returncode:
        raise EffbookError(f"effbook {' '.join(command)} failed", done.stderr.strip() or "call it yourself")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
