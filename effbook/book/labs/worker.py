"""The process in which a submission runs: cell by cell, with what it computes handed over as plain values in files.

`python -m effbook.book.labs.worker TASK.json OUT` reads the cells and writes OUT/<cell>.json and .safetensors after
each check, OUT/errors.json, and at the end OUT/done. It compares nothing and holds no reference.
"""

import json
import math
import os
import sys
from pathlib import Path

import torch

from effbook.book.labs import values
from effbook.book.labs.classroom import SEED

DONE = "done"  # a file that says that all cells were run


class Kernel:
    """A namespace in which cells are run one after the other; what one raises stops no other."""

    def __init__(self) -> None:
        self.history: list[str] = []
        self.entries: list[dict] = []
        self.tensors: dict = {}
        self.namespace = {"__name__": "__main__", "In": self.history, "hand_over__": self.hand_over}

    def run(self, source: str, name: str) -> str | None:
        """Run a cell; the error in one line, None where there was none."""
        self.history.append(source)
        self.entries, self.tensors = [], {}
        try:
            exec(compile(_plain_python(source), f"<{name}>", "exec"), self.namespace)
        except BaseException as error:  # sys.exit, too, ends the cell and not the lab
            return _line(error)
        return None

    def hand_over(self, kind: str, what: object, later: object) -> None:
        """Compute a value and keep it, or why it could not be computed."""
        entry = {"kind": kind, "what": str(what)}
        try:
            entry["value"] = values.to_plain(later(), self.tensors)
        except Exception as error:
            entry["error"] = _line(error)
        self.entries.append(entry)


def _plain_python(source: str) -> str:
    """A cell without the magics that a student may have added: they draw, list and time, and are left out."""
    lines = source.splitlines()
    return "\n".join("pass" if line.startswith(("%", "!")) else line for line in lines)


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def main(task: Path, out: Path) -> None:
    """Run all cells of a task."""
    told = json.loads(task.read_text(encoding="utf-8"))
    _limit(told["limit_s"])
    os.environ[SEED] = str(told["seed"])
    kernel, errors = Kernel(), {}
    hand_in, write = values.write, Path.write_text  # taken before a stranger's code runs
    for name, source, graded in told["cells"]:
        error = kernel.run(source, name)
        if error is not None:
            errors[name] = error
            write(out / "errors.json", json.dumps(errors), encoding="utf-8")
        if graded:
            hand_in(out / name, kernel.entries, kernel.tensors)
    write(out / DONE, "", encoding="utf-8")


def _limit(seconds: float) -> None:
    """Let the system end this process after so many seconds of processor time, of each thread that torch may use."""
    try:
        import resource
    except ImportError:  # Windows: the grader's own clock alone
        return
    most = math.ceil(seconds) * torch.get_num_threads()
    resource.setrlimit(resource.RLIMIT_CPU, (most, most))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
