"""One submission in a process of its own, with a time limit, and what that process handed over."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from effbook.book.labs import values
from effbook.book.labs.cells import Cell
from effbook.book.labs.worker import DONE
from effbook.errors import EffbookError

WALL_FACTOR, LEAST_WALL_S = 10, 600  # a process may wait for a busy machine: its limit is of processor time first
MOST_ERRORS = 1_000_000  # bytes of the file of errors


class HandedOver(NamedTuple):
    """What came out: by cell the entries of its check, each {"what", "value" or "error"}; the errors of cells by their
    ids; how the process ended, "" for well; its seconds."""

    entries: dict[str, list[dict]]
    errors: dict[str, str]
    ended: str
    seconds: float


def run(cells: list[Cell], *, seed: int, limit_s: float) -> HandedOver:
    """Run the cells of a submission, for `limit_s` seconds of processor time; by the clock ten times as long.

    Nothing that they do ends the caller. But the process has the rights of the user who grades: see "Teach with it"
    for a place where that does no harm.
    """
    with tempfile.TemporaryDirectory(prefix="effbook-lab-", ignore_cleanup_errors=True) as folder:
        task, out, home = Path(folder) / "task.json", Path(folder) / "out", Path(folder) / "here"
        out.mkdir()
        home.mkdir()
        task.write_text(json.dumps({"seed": seed, "limit_s": limit_s, "cells": cells}), encoding="utf-8")
        began = time.perf_counter()
        ended = _call([sys.executable, "-m", "effbook.book.labs.worker", str(task), str(out)], home, limit_s)
        seconds = time.perf_counter() - began
        if not ended and not (out / DONE).is_file():
            ended = "its process ended itself before the last cell"
        entries = {cell.grade_id: _entries(out / cell.grade_id) for cell in cells if cell.graded}
        return HandedOver(entries, _errors(out / "errors.json"), ended, seconds)


def _call(command: list[str], folder: Path, limit_s: float) -> str:
    """Run a command to its end or to the limit, and then end all processes that it started; how it ended."""
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=folder, env=_environment(), start_new_session=os.name == "posix", **quiet)
    try:
        status = process.wait(timeout=max(LEAST_WALL_S, WALL_FACTOR * limit_s))
        if os.name == "posix" and status in (-signal.SIGXCPU, -signal.SIGKILL):
            return f"it was stopped: {limit_s:.0f} seconds of processor time, or the memory, were used up"
        return "" if status == 0 else f"its process ended with status {status}"
    except subprocess.TimeoutExpired:
        return f"it was stopped: it did not end within {max(LEAST_WALL_S, WALL_FACTOR * limit_s):.0f} seconds"
    finally:
        if os.name == "posix":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()


def _environment() -> dict[str, str]:
    """The environment, with absolute folders for the cache of data and the package: the process works elsewhere."""
    from effbook import data

    package = str(Path(__file__).resolve().parents[3])
    paths = os.pathsep.join([package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])
    kept = {"EFFBOOK_DATA": str(data.cache_folder()), "PYTHONPATH": paths, "MPLBACKEND": "Agg"}
    return {**os.environ, **kept}


def _entries(place: Path) -> list[dict]:
    """What a check's cell handed over; nothing where it did not come so far or its files are none of ours."""
    try:
        told, tensors = values.read(place)
        return [
            {"what": one["what"], "error": str(one["error"])}
            if "error" in one
            else {"what": one["what"], "value": values.from_plain(one["value"], tensors)}
            for one in told
        ]
    except (EffbookError, KeyError, TypeError, RecursionError):
        return []


def _errors(place: Path) -> dict[str, str]:
    try:
        if place.stat().st_size > MOST_ERRORS:
            return {}
        told = json.loads(place.read_text(encoding="utf-8"))
        return {str(name): str(error) for name, error in told.items()}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
