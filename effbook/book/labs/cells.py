"""A lab's notebook as nbgrader sees it: which cells are gaps, checks and questions, and the student's version of it.

Metadata: `nbgrader` with grade, grade_id, locked, points, schema_version 3, solution and task. A check may have a part
between HIDDEN TESTS delimiters, a gap one between SOLUTION delimiters; neither reaches a student.
"""

import ast
import copy
import re
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbformat import NotebookNode

from effbook.errors import EffbookError

LABS = ("cmsf", "simreg", "compgs", "nola", "slowformer")
SCHEMA = 3
POINTS = {"visible": 20, "hidden": 30, "outcome": 20, "reflection": 30}
KEYS = {"grade", "grade_id", "locked", "schema_version", "solution", "task"}
SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION[ \t]*$", re.DOTALL | re.MULTILINE)
HIDDEN = re.compile(r"^[ \t]*### BEGIN HIDDEN TESTS\n.*?^[ \t]*### END HIDDEN TESTS[ \t]*\n?", re.DOTALL | re.MULTILINE)
STUB = "# YOUR CODE HERE\n{0}raise NotImplementedError()"
ANSWER = "YOUR ANSWER HERE"
SKIPPED = "ungraded"  # a tag: what only draws, or goes further, is not run when a lab is graded


class Task(NamedTuple):
    """What points are for: a cell's id, the points, and which kind of work it is (`POINTS`)."""

    grade_id: str
    points: int
    kind: str


class Cell(NamedTuple):
    """A cell to be run: its id, its source, and whether values are to be handed over from it."""

    grade_id: str
    source: str
    graded: bool


def of(cell: NotebookNode) -> dict:
    """A cell's nbgrader metadata; empty where it has none or is broken."""
    found = cell.metadata.get("nbgrader", {})
    return found if isinstance(found, dict) and isinstance(found.get("grade_id"), str) else {}


def kind_of(cell: NotebookNode) -> str:
    """ "gap", "visible", "hidden", "outcome", "reflection", or "" for a cell that nobody is graded for."""
    told = of(cell)
    if told.get("grade"):
        if told.get("solution"):
            return "reflection"
        return "hidden" if HIDDEN.search(cell.source) else "outcome" if "measured(" in cell.source else "visible"
    return "gap" if told.get("solution") else ""


def read(path: Path) -> NotebookNode:
    """A notebook. Raises EffbookError where the file is none."""
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise EffbookError(f"there is no notebook {path}", "check the path") from None
    except Exception as error:  # files of strangers
        raise EffbookError(f"{path} cannot be read as a notebook ({type(error).__name__})", "give an .ipynb") from None


def instructor(lab: str, source: Path | None = None) -> NotebookNode:
    """The instructor's notebook: `source`, or labs/NAME.ipynb of the checkout. Raises EffbookError if it has faults."""
    from effbook.book.places import repository_root

    if source is None and lab not in LABS:
        raise EffbookError(f"there is no lab {lab!r}", f"choose one of {', '.join(LABS)}")
    notebook = read(source or repository_root() / "labs" / f"{lab}.ipynb")
    if found := faults(notebook):
        raise EffbookError(f"the notebook of {lab} is no lab: {found[0]}", "give the instructor's notebook")
    return notebook


def lab_of(notebook: NotebookNode) -> str:
    """The lab's name as the notebook's metadata tell it, "" where they don't."""
    told = notebook.metadata.get("effbook", {})
    return str(told.get("lab", "")) if isinstance(told, dict) else ""


def tasks(notebook: NotebookNode) -> list[Task]:
    """What there are points for, in order."""
    return [
        Task(of(cell)["grade_id"], int(of(cell)["points"]), kind_of(cell))
        for cell in notebook.cells
        if of(cell).get("grade")
    ]


def faults(notebook: NotebookNode) -> list[str]:
    """What keeps a notebook from being an instructor's: metadata, delimiters and points."""
    found, names = [], []
    for cell in filter(of, notebook.cells):
        told = of(cell)
        names.append(told["grade_id"])
        if not set(told) >= KEYS or told["schema_version"] != SCHEMA or ("points" in told) != bool(told["grade"]):
            found.append(f"{told['grade_id']} has incomplete metadata")
        if kind_of(cell) == "gap" and not SOLUTION.search(cell.source):
            found.append(f"{told['grade_id']} is a gap without a solution")
        if "### BEGIN" in SOLUTION.sub("", HIDDEN.sub("", cell.source)):
            found.append(f"{told['grade_id']} has a delimiter without its end")
    if len(set(names)) < len(names):
        found.append("two cells have one grade_id")
    sums = dict.fromkeys(POINTS, 0)
    for task in tasks(notebook):
        sums[task.kind] += task.points
    if not any(name.endswith("-parameters") for name in names):
        found.append("no cell declares its parameters")
    if sums != POINTS:
        found.append(f"its points are {sums}, not {POINTS}")
    return found


def student_version(notebook: NotebookNode) -> NotebookNode:
    """What is handed out: solutions replaced by stubs, hidden tests and outputs removed, answers emptied."""
    handed = copy.deepcopy(notebook)
    for cell in handed.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        cell.source = student_source(cell)
    return handed


def student_source(cell: NotebookNode) -> str:
    """The source of one cell as a student gets it."""
    if kind_of(cell) == "reflection":
        return ANSWER
    without = SOLUTION.sub(lambda found: found[1] + STUB.format(found[1]), cell.source)
    return HIDDEN.sub("", without).rstrip("\n")


def rewritten(source: str, *, trusted: bool) -> str:
    """A check whose `expect` and `measured` hand over in place of comparing.

    Untrusted, what is wanted and how it is scored are taken out: a student's process never sees them.
    """
    return ast.unparse(ast.fix_missing_locations(_Handing(trusted).visit(ast.parse(source))))


class _Handing(ast.NodeTransformer):
    def __init__(self, trusted: bool) -> None:
        self.trusted = trusted

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if not isinstance(node.func, ast.Name) or node.func.id not in ("expect", "measured"):
            return self.generic_visit(node)
        got, last = node.args[-2:]
        given = [ast.Constant(node.func.id), node.args[0], _later(got)]
        return ast.Call(ast.Name("hand_over__", ast.Load()), given + [_later(last)] * self.trusted, [])


def _later(value: ast.expr) -> ast.Lambda:
    return ast.Lambda(ast.arguments([], [], None, [], [], None, []), value)


def assembled(notebook: NotebookNode, handed_in: NotebookNode | None) -> tuple[list[Cell], list[str]]:
    """The cells to run for a submission, and what is to be said about it; None: the instructor's own, to be trusted.

    Only gaps and what a student added are taken from a submission. Everything else is the instructor's, so an edited
    check is as it was. A cell whose metadata is lost is known by its notebook id; one that has lost both is run where
    it stands, as one that the student added.
    """
    notes: list[str] = []
    found, extras = _sorted(notebook, handed_in, notes) if handed_in is not None else ({}, {})
    cells: list[Cell] = []
    for cell in notebook.cells:
        name, kind = of(cell).get("grade_id", cell.id), kind_of(cell)
        source = cell.source
        if handed_in is not None and kind == "gap":
            source = found.get(name, "")
        if cell.cell_type == "code" and SKIPPED not in cell.metadata.get("tags", []):
            graded = kind in ("visible", "hidden", "outcome")
            if graded:
                source = rewritten(source, trusted=handed_in is None)
            cells.append(Cell(name, source, graded))
        cells += [Cell(f"{name}+", extra, False) for extra in extras.get(name, ())]
    return cells, notes


def _sorted(
    notebook: NotebookNode, handed_in: NotebookNode, notes: list[str]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The student's sources by the cells' names, and the cells that she added, by the name of the one before."""
    by_id = {cell.id: of(cell).get("grade_id", cell.id) for cell in notebook.cells}
    names = set(by_id.values())
    lost, twice, last = [], [], next(iter(by_id.values()))
    found: dict[str, str] = {}
    extras: dict[str, list[str]] = {}
    for cell in handed_in.cells:
        name = of(cell).get("grade_id")
        if name not in names:
            name = by_id.get(cell.get("id"))
            lost += [name] if name is not None and kind_of_name(notebook, name) else []
        if name is None:
            if cell.cell_type == "code":
                extras.setdefault(last, []).append(cell.source)
        elif name in found:
            twice.append(name)
        else:
            found[name], last = cell.source, name
    changed = [
        name
        for cell in notebook.cells
        if (name := by_id[cell.id]) in found
        and of(cell).get("locked")
        and all(_differs(found[name], own) for own in (student_source(cell), cell.source))  # hers, or the instructor's
    ]
    missing = [name for cell in notebook.cells if kind_of(cell) == "gap" and (name := by_id[cell.id]) not in found]
    for which, told in (
        (changed, "edited, so the original was run"),
        (lost, "without metadata, but known by id"),
        (twice, "there twice, of which the first was taken"),
        (missing, "not there, or run as added cells, having lost metadata and id"),
    ):
        notes += [f"{told}: {', '.join(which)}"] if which else []
    return found, extras


def kind_of_name(notebook: NotebookNode, name: str) -> str:
    """The kind of the cell of this grade_id, "" where it has none."""
    return next((kind_of(cell) for cell in notebook.cells if of(cell).get("grade_id") == name), "")


def _differs(a: str, b: str) -> bool:
    return a.strip().splitlines() != b.strip().splitlines()
