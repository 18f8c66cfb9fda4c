"""A process that runs recipes for `execute_all`, one after another: a line of JSON asks for a run, another answers.

It is a process of its own, and not one of a pool that breaks as a whole: the system may kill it, and the others go on.
"""

import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from datetime import datetime
from typing import Any

from effbook.errors import EffbookError
from effbook.runs import records
from effbook.runs.execute import execute
from effbook.runs.machine import THREAD_VARIABLES
from effbook.runs.recipe import Recipe, make, recipe_class, recipe_names
from effbook.runs.records import Record


class Worker:
    """The asking side. The process is started with the first run, and again after one that it did not survive."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._process: subprocess.Popen | None = None

    def run(self, recipe: Recipe, profile: str, fresh_since: datetime | None) -> Record:
        """The record of a run in the process. Raises EffbookError where the process was killed."""
        process = self._process = self._process or self._started()
        order = {
            "modules": [type(recipe).__module__, *_ours()],
            "name": recipe.name,
            "fields": recipe.fields,
            "profile": profile,
            "fresh_since": fresh_since.isoformat() if fresh_since else None,
        }
        try:
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:  # it died before it read
            line = ""
        if not line:
            self._process = None
            raise _death(process)
        answer = json.loads(line)
        if "cause" in answer:
            raise EffbookError(answer["cause"], answer["remedy"])
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return records.read(records.path_of(recipe, profile))

    def close(self) -> None:
        """End the process, also in the middle of a run."""
        process, self._process = self._process, None
        if process is None:
            return
        process.stdin.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait()
        process.stdout.close()

    def _started(self) -> subprocess.Popen:
        environment = dict.fromkeys(THREAD_VARIABLES, str(self.threads)) | os.environ  # what the user gave goes first
        environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
        pipe = subprocess.PIPE
        command = [sys.executable, "-m", "effbook.runs.worker"]
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, text=True, encoding="utf-8")


def _ours() -> list[str]:
    """The modules of all recipes of this package: a run may depend on one of another chapter."""
    package = __name__.partition(".")[0] + "."
    return sorted({found for name in recipe_names() if (found := recipe_class(name).__module__).startswith(package)})


def _death(process: subprocess.Popen) -> EffbookError:
    """What to say of a process that ended without an answer."""
    status = process.wait()
    process.stdin.close()
    process.stdout.close()
    if status >= 0:
        return EffbookError(f"its process ended with status {status}", "see what it printed, or run it alone")
    name = signal.Signals(-status).name if -status in iter(signal.Signals) else f"signal {-status}"
    why = "the memory may not have sufficed: " if name == "SIGKILL" else ""
    return EffbookError(f"its process was killed by {name}", f"{why}run it again with fewer jobs, such as --jobs 1")


def _answer(order: dict[str, Any]) -> dict[str, str]:
    """Do one run; {} where its record is there."""
    try:
        for module in order["modules"]:
            importlib.import_module(module)
        recipe = make(order["name"], **order["fields"])
        since = order["fresh_since"] and datetime.fromisoformat(order["fresh_since"])
        execute(recipe, profile=order["profile"], fresh_since=since, quiet=True)
    except EffbookError as error:
        return {"cause": error.cause, "remedy": error.remedy}
    except Exception as error:  # whatever it is, it must be able to travel
        return {"error": f"{type(error).__name__}: {error}"}
    return {}


def main() -> None:
    """Answer orders until there are no more; end at once, also in the middle of a run, when who asks is gone."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    orders: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    busy = threading.Event()

    def listen() -> None:
        for line in sys.stdin:
            busy.set()
            orders.put(line)
        if busy.is_set():
            os._exit(1)
        orders.put(None)

    threading.Thread(target=listen, daemon=True).start()
    try:
        while (line := orders.get()) is not None:
            answer = json.dumps(_answer(json.loads(line)))
            busy.clear()
            answers.write(answer + "\n")
            answers.flush()
    except KeyboardInterrupt:  # who asks tells it
        os._exit(130)


if __name__ == "__main__":
    main()
