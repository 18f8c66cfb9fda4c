"""What the tests of the book share."""

import os
from pathlib import Path

import nbformat
import pytest
from filelock import FileLock

from effbook.book import site

CELLS = [
    'from typing import Literal\n\nword: Literal["one", "two"] = "one"  # what is printed twice',
    "from effbook.book import check_parameters\n\ncheck_parameters(globals())",
    "print(word * 2)",
]


@pytest.fixture
def write_notebook():
    """write_notebook(path, cells, more=[...], tags=...): a small notebook whose first code cell is its parameters."""

    def write(path, cells=CELLS, *, more=(), tags=("parameters",), title=None):
        notebook = nbformat.v4.new_notebook()
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook.cells = [nbformat.v4.new_code_cell(source) for source in [*cells, *more]]
        notebook.cells[0].metadata["tags"] = list(tags)
        if title:
            notebook.cells.insert(0, nbformat.v4.new_markdown_cell(f"# {title}"))
        nbformat.write(notebook, path)
        return path

    return write


@pytest.fixture(scope="session")
def smoke_book(tmp_path_factory):
    """The whole book at smoke, built once for all workers: (the folder of the build, the site)."""
    own = tmp_path_factory.getbasetemp()
    work = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "smoke-book"
    with FileLock(f"{work}.lock"):
        if not (told := work / "site.txt").exists():
            html = site.build("smoke", work=work, say=lambda line: None)
            told.write_text(str(html))
    return work, Path(told.read_text())
