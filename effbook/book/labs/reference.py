"""The instructor's own run, in the grader's process: what each check wants, and how the outcome is scored."""

import contextlib
import io
import math
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from nbformat import NotebookNode

from effbook.book.labs.bands import band_of
from effbook.book.labs.cells import Cell, assembled
from effbook.book.labs.classroom import SEED
from effbook.book.labs.values import difference, from_plain, to_plain
from effbook.errors import EffbookError


class Check(NamedTuple):
    """One value of a check: what it is called, and a function that says how a student's value is wrong, or None."""

    what: str
    problem: Callable[[object], str | None]


class Reference(NamedTuple):
    """The checks by their cells' ids, and the score of the instructor's own outcome."""

    checks: dict[str, list[Check]]
    outcome: float


def reference(notebook: NotebookNode, *, seed: int, profile: str, banded: bool = True) -> Reference:
    """Run the instructor's notebook and keep what it wants. Raises EffbookError where it fails its own checks.

    `banded`: its outcome, too, must lie in the band.
    """
    kernel = _Trusted(banded)
    cells = with_parameters(assembled(notebook, None)[0], seed=seed, profile=profile)
    with _settled(seed), contextlib.redirect_stdout(io.StringIO()):
        for cell in cells:
            kernel.run(cell)
    return Reference(kernel.checks, kernel.outcome)


def outcome(notebook: NotebookNode, *, seed: int, profile: str) -> float:
    """The instructor's outcome with a seed."""
    return reference(notebook, seed=seed, profile=profile, banded=False).outcome


def with_parameters(cells: list[Cell], *, seed: int, profile: str) -> list[Cell]:
    """The cells, with one as papermill injects it behind the instructor's that declares the parameters."""
    at = next(i for i, cell in enumerate(cells) if cell.grade_id.endswith("-parameters"))
    given = Cell("given-parameters", f"# Parameters\nprofile = {profile!r}\nseed = {seed!r}", False)
    return [*cells[: at + 1], given, *cells[at + 1 :]]


@contextlib.contextmanager
def _settled(seed: int) -> Iterator[None]:
    """The teacher's seed in the environment, and torch's global draws put back afterwards."""
    before = os.environ.get(SEED)
    os.environ[SEED] = str(seed)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        if before is None:
            del os.environ[SEED]
        else:
            os.environ[SEED] = before


class _Trusted:
    """Runs the instructor's cells and collects the checks."""

    def __init__(self, banded: bool) -> None:
        self.banded, self.checks, self.outcome = banded, {}, math.nan
        self.now, self.history = "", []
        self.namespace = {"__name__": "__main__", "In": self.history, "hand_over__": self.hand_over}

    def run(self, cell: Cell) -> None:
        self.now = cell.grade_id
        self.history.append(cell.source)
        if cell.graded:
            self.checks[cell.grade_id] = []
        try:
            exec(compile(cell.source, f"<{cell.grade_id}>", "exec"), self.namespace)
        except EffbookError:
            raise
        except Exception as error:
            told = f"{type(error).__name__}: {error}".splitlines()[0]
            raise EffbookError(f"the instructor's cell {cell.grade_id} failed with {told}", "mend it") from error

    def hand_over(self, kind: str, what: str, got: Callable[[], object], last: Callable[[], object]) -> None:
        """Keep how a value is judged, and judge the instructor's own."""
        check = Check(what, self._banded(what, last()) if kind == "measured" else self._compared(last()))
        tensors: dict = {}
        why = check.problem(from_plain(to_plain(got(), tensors), tensors))
        if why is not None:
            remedy = "take another seed, or measure the band anew" if kind == "measured" else "mend the notebook"
            raise EffbookError(f"the instructor's own {self.now} fails: {what}: it {why}", remedy)
        self.checks[self.now].append(check)

    def _compared(self, wanted: object) -> Callable[[object], str | None]:
        if isinstance(wanted, torch.Tensor):
            wanted = wanted.detach().clone()
        return lambda got: difference(got, wanted)

    def _banded(self, lab: str, score: Callable[[object], float]) -> Callable[[object], str | None]:
        low, high = band_of(lab, self.namespace["profile"]) if self.banded else (-math.inf, math.inf)

        def problem(got: object) -> str | None:
            try:
                found = float(score(got))
            except Exception as error:  # of values of another shape, as a stranger may hand over
                return f"cannot be scored ({type(error).__name__})"
            if math.isnan(self.outcome):  # the first is the instructor's own
                self.outcome = found
            return None if low <= found <= high else f"is {found:.2f}, outside {low:.2f} to {high:.2f}"

        return problem
