"""The book: its notebooks run through papermill, its site staged, built and checked.

What notebooks import is here and is light; `effbook.book.site` builds, `effbook.book.notebooks` runs a notebook.
"""

from effbook.book.parameters import check_parameters
from effbook.book.runs import ensure_runs, live, quiet_libraries, runs_in_words

__all__ = ["check_parameters", "ensure_runs", "live", "quiet_libraries", "runs_in_words"]
