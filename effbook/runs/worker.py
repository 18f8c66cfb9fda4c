"""A process for one run: a line of JSON asks for it, another answers.

It is a process of its own, and not one of a pool that breaks as a whole: the system may kill it, and the others go on.
Which GPUs it sees is settled before anything in it asks for one.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime

from effbook.errors import EffbookError
from effbook.runs import one, orders, records
from effbook.runs.recipe import Recipe
from effbook.runs.records import Record


class Worker:
    """The asking side: starts the process, and reads the record that it made."""

    def __init__(self, threads: int, cards: Sequence[str] | None = None) -> None:
        """`cards` are the GPUs that the run is to see; None leaves that as it is."""
        pipe = subprocess.PIPE
        told = orders.environment(threads) | ({} if cards is None else {"CUDA_VISIBLE_DEVICES": ",".join(cards)})
        command = [sys.executable, "-m", __name__]
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=told, text=True, encoding="utf-8")

    def run(self, recipe: Recipe, profile: str, fresh_since: datetime | None) -> Record:
        """The record of a run in the process, once. Raises EffbookError where the process was killed."""
        process = self._process
        try:
            process.stdin.write(json.dumps(orders.order_of(recipe, profile, fresh_since)) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:  # it died before it read
            line = ""
        if not line:
            raise _death(process.wait())
        if (failure := one.failure_in(json.loads(line))) is not None:
            raise failure
        return records.read(records.path_of(recipe, profile))

    def close(self) -> None:
        """End the process, also in the middle of a run."""
        with contextlib.suppress(OSError):  # it died, and something was still to be written to it
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def _death(status: int) -> EffbookError:
    """What to say of a process that ended without an answer."""
    if status >= 0:
        return EffbookError(f"its process ended with status {status}", "see what it printed, or run it alone")
    name = signal.Signals(-status).name if -status in iter(signal.Signals) else f"signal {-status}"
    why = "the memory may not have sufficed: " if name == "SIGKILL" else ""
    return EffbookError(f"its process was killed by {name}", f"{why}run it again with fewer jobs, such as --jobs 1")


def main() -> None:
    """Answer one order; the files of the record lie where who asks looks for them."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    order = sys.stdin.readline()
    orders.end_with_input()
    try:
        told = one.answer(json.loads(order))
    except KeyboardInterrupt:  # who asks tells it
        os._exit(130)
    told.pop("files", None)
    answers.write(json.dumps(told) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
