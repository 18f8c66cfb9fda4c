"""The book: its notebooks run through papermill, its site staged, built and checked."""

from effbook.book.notebooks import notebook_parameters, run_notebook
from effbook.book.parameters import check_parameters
from effbook.book.runs import ensure_runs, live, quiet_libraries, runs_in_words
from effbook.book.site import build, serve

__all__ = [
    "build",
    "check_parameters",
    "ensure_runs",
    "live",
    "notebook_parameters",
    "quiet_libraries",
    "run_notebook",
    "runs_in_words",
    "serve",
]
