"""Grades a folder of submissions of one lab: points, with the reason for each that is missing."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from nbformat import NotebookNode

from effbook.book.labs import cells as labs
from effbook.book.labs.bands import seconds_of
from effbook.book.labs.process import HandedOver, run
from effbook.book.labs.reference import Reference, reference, with_parameters
from effbook.errors import EffbookError
from effbook.files import write_atomically

START_S, FACTOR = 120, 5  # the time limit: to start with, and times the instructor's run


class Result(NamedTuple):
    """A student's points by the cells' ids, why some are missing, what else is to be said, and the seconds taken.

    Reflection has no points here: a person reads it.
    """

    student: str
    points: dict[str, int]
    reasons: dict[str, str]
    notes: list[str]
    seconds: float

    @property
    def total(self) -> int:
        """The sum of the automatic points, at most 70."""
        return sum(self.points.values())


def grade(
    folder: Path,
    *,
    seed: int,
    lab: str | None = None,
    profile: str = "mini",
    source: Path | None = None,
    limit_s: float | None = None,
    out: Path | None = None,
    say: Callable[[str], None] = print,
) -> list[Result]:
    """Grade every submission below `folder`: NAME.ipynb, or NAME/ with one notebook in it.

    Writes points.csv and results/NAME/results.json (Gradescope's) into `out`, by default a folder beside the
    submissions. `seed`, the teacher's own, is what the hidden checks draw from and what trains; `source` is the
    instructor's notebook, by default that of the checkout. Raises EffbookError where the folder holds no submission,
    they are of several labs, or the instructor's notebook fails; a submission that fails stops no other.
    """
    read = {name: _read(path) for name, path in submissions(folder).items()}  # all, before a stranger's code runs
    lab = lab or _common({labs.lab_of(one) for one in read.values() if not isinstance(one, str)} - {""})
    notebook = labs.instructor(lab, source)
    if limit_s is None:
        limit_s = START_S + FACTOR * (seconds_of(lab, profile) or 600)
    say(f"{lab}: the instructor's own run")
    wanted = reference(notebook, seed=seed, profile=profile)
    results = []
    for name, handed_in in read.items():
        one = _graded(name, handed_in, notebook, wanted, seed=seed, profile=profile, limit_s=limit_s)
        say(f"{name}: {one.total} of {sum(t.points for t in _automatic(notebook))}")
        results.append(one)
    out = out or folder.resolve().with_name(f"{folder.resolve().name}-graded")
    write_atomically(out / "points.csv", as_csv(results, notebook))
    for one in results:
        told = json.dumps(as_gradescope(one, notebook), indent=1)
        write_atomically(out / "results" / one.student / "results.json", told)
    return results


def submissions(folder: Path) -> dict[str, Path]:
    """The notebooks below a folder by the students' names. Raises EffbookError where there is none."""
    if not folder.is_dir():
        raise EffbookError(f"there is no folder {folder}", "give the folder that holds the submissions")
    found = {}
    for entry in sorted(folder.iterdir()):
        inside = sorted(entry.glob("*.ipynb")) if entry.is_dir() else []
        if entry.is_file() and entry.suffix == ".ipynb":
            found[entry.stem] = entry
        elif len(inside) == 1:
            found[entry.name] = inside[0]
    if not found:
        raise EffbookError(f"{folder} holds no submission", "put NAME.ipynb, or NAME/ with one notebook, there")
    return found


def _read(path: Path) -> NotebookNode | str:
    """A submission; where it cannot be read, why."""
    try:
        return labs.read(path)
    except EffbookError as error:
        return error.cause.replace(str(path), path.name)


def _common(names: set[str]) -> str:
    if len(names) != 1:
        what = f"are of several labs: {', '.join(sorted(names))}" if names else "do not say which lab they are of"
        raise EffbookError(f"the submissions {what}", "name the lab with --lab")
    return names.pop()


def _automatic(notebook: NotebookNode) -> list[labs.Task]:
    return [task for task in labs.tasks(notebook) if task.kind != "reflection"]


def _graded(
    name: str,
    handed_in: NotebookNode | str,
    notebook: NotebookNode,
    wanted: Reference,
    *,
    seed: int,
    profile: str,
    limit_s: float,
) -> Result:
    if isinstance(handed_in, str):
        zero = {task.grade_id: 0 for task in _automatic(notebook)}
        return Result(name, zero, dict.fromkeys(zero, handed_in), [handed_in], 0.0)
    cells, notes = labs.assembled(notebook, handed_in)
    found = run(with_parameters(cells, seed=seed, profile=profile), seed=seed, limit_s=limit_s)
    points, reasons = {}, {}
    for task in _automatic(notebook):
        why = _problem(task.grade_id, found, wanted)
        points[task.grade_id] = 0 if why else task.points
        if why:
            reasons[task.grade_id] = why
    notes += [found.ended] if found.ended else []
    notes += [f"{cell}: {error}" for cell, error in found.errors.items()]
    return Result(name, points, reasons, notes, found.seconds)


def _problem(cell: str, found: HandedOver, wanted: Reference) -> str | None:
    """The first thing that is wrong with what a check's cell handed over; None where all is right."""
    checks, entries = wanted.checks[cell], found.entries.get(cell, [])
    for check, entry in zip(checks, entries, strict=False):
        why = f"raised {entry['error']}" if "error" in entry else check.problem(entry["value"])
        if why:
            return f"{check.what}: it {why}"
    if len(entries) < len(checks):
        return found.errors.get(cell) or found.ended or "its values were not handed over"
    return "it handed over more than was asked for" if len(entries) > len(checks) else None


def as_csv(results: list[Result], notebook: NotebookNode) -> str:
    """A line a student: points by cell, the sum, what is left for a person to read, and notes."""
    tasks = labs.tasks(notebook)
    written = io.StringIO()
    out = csv.writer(written, lineterminator="\n")
    automatic = sum(task.points for task in tasks if task.kind != "reflection")
    read = sum(task.points for task in tasks) - automatic
    ids = [f"{task.grade_id} ({task.points})" for task in tasks]
    out.writerow(["student", *ids, f"automatic ({automatic})", f"to read ({read})", "seconds", "notes"])
    for one in results:
        each = [one.points.get(task.grade_id, "") for task in tasks]
        why = {}  # the cells by what keeps them from their points
        for cell, reason in one.reasons.items():
            why.setdefault(reason, []).append(cell)
        told = [f"{', '.join(cells)}: {reason}" for reason, cells in why.items() if reason not in one.notes]
        said = "; ".join([*one.notes, *told])
        out.writerow([_harmless(one.student), *each, one.total, "", f"{one.seconds:.0f}", _harmless(said)])
    return written.getvalue()


def _harmless(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def as_gradescope(result: Result, notebook: NotebookNode) -> dict:
    """Gradescope's results.json of one student: a test for each check that was graded here."""
    tests = [
        {
            "name": task.grade_id,
            "score": result.points[task.grade_id],
            "max_score": task.points,
            "output": result.reasons.get(task.grade_id, ""),
            "visibility": "visible" if task.kind in ("visible", "outcome") else "after_published",
        }
        for task in _automatic(notebook)
    ]
    return {
        "score": result.total,
        "execution_time": round(result.seconds),
        "output": "\n".join(result.notes),
        "tests": tests,
    }
