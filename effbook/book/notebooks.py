"""Runs notebooks through papermill, with their parameters checked first and a kernel of this very environment."""

import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
import papermill
from joblib import Parallel, delayed
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from effbook.book.parameters import Parameter, check_values, parse_parameters
from effbook.errors import EffbookError
from effbook.runs.machine import THREAD_VARIABLES


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
        folders = os.pathsep.join(filter(None, [folder, os.environ.get("JUPYTER_PATH")]))
        with environment("JUPYTER_PATH", folders), warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)  # of papermill's own dependencies
            yield


@dataclass(frozen=True, kw_only=True)
class Job:
    """A notebook to run with these parameters; `out` is where it goes, executed."""

    path: Path
    out: Path
    parameters: Mapping[str, object]


def run_notebook(path: Path | str, out: Path | str, parameters: Mapping[str, object], *, quiet: bool = True) -> Path:
    """Run a notebook with these parameters and write it, executed, to `out`.

    An older file at `out` is replaced only by a run that went through; a failed run is kept beside it as
    `<name>.failed.ipynb`. Raises EffbookError for an unknown parameter, a wrong type or value (before anything
    starts) and for a cell that fails.
    """
    with own_kernel():
        return _run(Job(path=Path(path), out=Path(out), parameters=parameters), quiet=quiet)


def run_notebooks(jobs: Sequence[Job], *, at_a_time: int = 1) -> Iterator[tuple[Job, Exception | None]]:
    """Run several notebooks, `at_a_time` of them with one thread each, and yield each when it ends, with its error.

    One that fails stops no other. The kernels are processes of their own; here threads only wait for them.
    """
    with own_kernel(), ExitStack() as stack:
        for name in THREAD_VARIABLES:
            stack.enter_context(environment(name, "1"))
        pool = Parallel(n_jobs=at_a_time, backend="threading", return_as="generator_unordered")
        yield from pool(delayed(_outcome)(job) for job in jobs)


def _outcome(job: Job) -> tuple[Job, Exception | None]:
    try:
        _run(job)
    except Exception as error:  # whatever it is, the others go on
        return job, error
    return job, None


def _run(job: Job, *, quiet: bool = True) -> Path:
    check_values(notebook_parameters(job.path), job.parameters, str(job.path))
    job.out.parent.mkdir(parents=True, exist_ok=True)
    failed = job.out.with_name(f"{job.out.stem}.failed.ipynb")
    try:
        papermill.execute_notebook(
            str(job.path),
            str(failed),  # papermill writes after every cell: this file is whole only at the end
            parameters=dict(job.parameters),
            kernel_name="python3",
            cwd=str(job.path.parent),
            progress_bar=not quiet,
        )
    except PapermillExecutionError as error:
        cause = f"{error.ename}: {error.evalue}".splitlines()[0]
        raise EffbookError(
            f"A cell of {job.path} failed with {cause}", f"the run as far as it came is in {failed}"
        ) from error
    except DeadKernelError as error:
        raise EffbookError(
            f"The kernel that ran {job.path} was killed, which mostly means that memory ran out",
            "run fewer notebooks at a time (--jobs 1)",
        ) from error
    failed.replace(job.out)
    return job.out


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
