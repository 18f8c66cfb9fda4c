"""Runs notebooks through papermill, with their parameters checked first and a kernel of this very environment."""

import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError

from effbook.book.parameters import Parameter, check_values, parse_parameters
from effbook.errors import EffbookError


def notebook_parameters(path: Path | str) -> dict[str, Parameter]:
    """Read what a notebook's cell tagged `parameters` declares.

    Raises EffbookError for a file that is absent, isn't a notebook or has no such cell.
    """
    path = Path(path)
    if not path.is_file():
        raise EffbookError(f"There is no notebook {path}", "look into the folder notebooks/ for the names")
    try:
        notebook = nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, UnicodeDecodeError, AttributeError) as error:
        raise EffbookError(f"{path} cannot be read as a notebook", "give the path of an .ipynb file") from error
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if "parameters" in cell.metadata.get("tags", []):
                return parse_parameters(cell.source, str(path))
            break
    raise EffbookError(f"The first code cell of {path} is not tagged 'parameters'", "tag it in the cell's metadata")


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """Set an environment variable for a while; kernels started meanwhile inherit it."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def own_kernel() -> Iterator[None]:
    """Make the kernel named python3 the interpreter that runs this code, whatever else is installed on the machine."""
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=40"],
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
    }
    with tempfile.TemporaryDirectory(prefix="effbook-kernel-") as folder:
        place = Path(folder) / "kernels" / "python3"
        place.mkdir(parents=True)
        (place / "kernel.json").write_text(json.dumps(spec))
        with environment("JUPYTER_PATH", os.pathsep.join(filter(None, [folder, os.environ.get("JUPYTER_PATH")]))):
            yield


def run_notebook(path: Path | str, out: Path | str, parameters: Mapping[str, object], *, quiet: bool = True) -> Path:
    """Run a notebook with these parameters and write it, executed, to `out`.

    An older file at `out` is replaced only by a run that went through; a failed run is kept beside it as
    `<name>.failed.ipynb`. Raises EffbookError for an unknown parameter, a wrong type or value (before anything
    starts) and for a cell that fails.
    """
    path, out = Path(path), Path(out)
    check_values(notebook_parameters(path), parameters, str(path))
    out.parent.mkdir(parents=True, exist_ok=True)
    failed = out.with_name(f"{out.stem}.failed.ipynb")
    try:
        with own_kernel(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)  # of papermill's own dependencies
            papermill.execute_notebook(
                str(path),
                str(failed),  # papermill writes after every cell: this file is whole only at the end
                parameters=dict(parameters),
                kernel_name="python3",
                cwd=str(path.parent),
                progress_bar=not quiet,
            )
    except PapermillExecutionError as error:
        cause = f"{error.ename}: {error.evalue}".splitlines()[0]
        raise EffbookError(
            f"A cell of {path} failed with {cause}", f"the run as far as it came is in {failed}"
        ) from error
    failed.replace(out)
    return out


def refresh_outputs(path: Path | str) -> None:
    """Rewrite a notebook as it is committed: no outputs but those of cells tagged `nbval-check-output`, made anew.

    Those outputs are the same at every profile, so the notebook is run at `smoke`, with records in a folder of its own.
    """
    path = Path(path)
    notebook = nbformat.read(path, as_version=4)
    outputs = {}
    if any(_is_checked(cell) for cell in notebook.cells):
        with tempfile.TemporaryDirectory() as folder, environment("EFFBOOK_RECORDS", f"{folder}/records"):
            executed = run_notebook(path, Path(folder) / path.name, {"profile": "smoke"})
            outputs = {cell.id: cell for cell in nbformat.read(executed, as_version=4).cells}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if _is_checked(cell):  # nbval compares only what has a count
                cell.outputs, cell.execution_count = outputs[cell.id].outputs, outputs[cell.id].execution_count
            cell.metadata = {key: cell.metadata[key] for key in ("tags", "mystnb") if key in cell.metadata}
    nbformat.write(notebook, path)


def _is_checked(cell: nbformat.NotebookNode) -> bool:
    return "nbval-check-output" in cell.metadata.get("tags", [])
