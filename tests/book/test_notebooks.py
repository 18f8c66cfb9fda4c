"""Running notebooks: what is refused before papermill starts, what a failure leaves, and every notebook of ours."""

import os
import re
import subprocess
import sys

import nbformat
import papermill
import pytest

from effbook.book.notebooks import Job, notebook_parameters, own_kernel, refresh_outputs, run_notebook, run_notebooks
from effbook.book.site import repository_root
from effbook.errors import EffbookError

CHECK = "from effbook.book import check_parameters\n\ncheck_parameters(globals())"
ROOT = repository_root()
NOTEBOOKS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "notebooks").rglob("*.ipynb"))
NOTEBOOKS = [name for name in NOTEBOOKS if ".ipynb_checkpoints" not in name]


def printed(path):
    notebook = nbformat.read(path, as_version=4)
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))


def test_a_notebook_runs_with_its_parameters_in_this_very_interpreter(tmp_path, write_notebook):
    path = write_notebook(tmp_path / "a.ipynb", more=["import sys; print(sys.executable)"])
    out = run_notebook(path, tmp_path / "deep" / "out.ipynb", {"word": "two"})
    assert printed(out) == f"twotwo\n{sys.executable}\n"


@pytest.mark.parametrize(
    ("parameters", "says"),
    [({"word": "three"}, "must be 'one' or 'two'"), ({"world": "one"}, "did you mean 'word'"), ({"word": 1}, "not 1")],
)
def test_a_wrong_parameter_is_refused_before_anything_starts(tmp_path, write_notebook, parameters, says, monkeypatch):
    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: pytest.fail("papermill was started"))
    with pytest.raises(EffbookError, match=says):
        run_notebook(write_notebook(tmp_path / "a.ipynb"), tmp_path / "out.ipynb", parameters)


def test_papermill_alone_stops_at_a_parameter_that_the_notebook_does_not_know(tmp_path, write_notebook):
    with own_kernel(), pytest.raises(papermill.PapermillExecutionError, match="did you mean 'word'"):
        papermill.execute_notebook(
            write_notebook(tmp_path / "a.ipynb"), tmp_path / "out.ipynb", {"wort": "two"}, progress_bar=False
        )


def test_a_cell_that_fails_keeps_the_older_result_and_names_the_cause(tmp_path, write_notebook):
    path = write_notebook(tmp_path / "a.ipynb", more=["assert word == 'one', 'only one'"])
    out = run_notebook(path, tmp_path / "out.ipynb", {"word": "one"})
    before = out.read_bytes()
    with pytest.raises(EffbookError, match=r"failed with AssertionError: only one; .*out\.failed\.ipynb"):
        run_notebook(path, out, {"word": "two"})
    assert out.read_bytes() == before
    assert "twotwo" in printed(tmp_path / "out.failed.ipynb")


def test_several_run_at_a_time_with_one_thread_each_and_what_fails_hides_nothing(tmp_path, write_notebook):
    meet = [
        "import os, pathlib, time",
        "here = pathlib.Path(os.getcwd())",
        "(here / f'{word}.met').touch()",
        "end = time.monotonic() + 300",  # a crowded machine starts a kernel slowly
        "while len(list(here.glob('*.met'))) < 2 and time.monotonic() < end: time.sleep(0.02)",
        "print(len(list(here.glob('*.met'))), 'met,', os.environ['OMP_NUM_THREADS'], 'thread')",
    ]
    last = "os.kill(os.getpid(), 9) if word == 'one' else None"  # as when memory runs out
    path = write_notebook(tmp_path / "a.ipynb", more=["\n".join(meet), last])
    words = ("one", "two", "three")
    jobs = [Job(path=path, out=tmp_path / word / "out.ipynb", parameters={"word": word}) for word in words]
    outcomes = {job.parameters["word"]: error for job, error in run_notebooks(jobs, at_a_time=2)}
    assert outcomes["two"] is None
    assert "2 met, 1 thread" in printed(jobs[1].out)
    assert str(outcomes["three"]).startswith(f"Parameter 'word' of {path} must be 'one' or 'two'")
    assert f"The kernel that ran {path} was killed" in str(outcomes["one"])
    assert "--jobs 1" in str(outcomes["one"])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path, write: None, "There is no notebook"),
        (lambda path, write: path.write_text("# not one"), "cannot be read as a notebook"),
        (lambda path, write: write(path, tags=()), "is not tagged 'parameters'"),
        (lambda path, write: write(path, ["word = 'one'"]), "annotate it"),
    ],
)
def test_what_is_no_notebook_of_ours_gets_one_sentence(tmp_path, write_notebook, make, says):
    make(tmp_path / "a.ipynb", write_notebook)
    with pytest.raises(EffbookError, match=says):
        notebook_parameters(tmp_path / "a.ipynb")


# --- the notebooks of the book ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_parameter_of_the_book_is_annotated_explained_and_checked(name):
    parameters = notebook_parameters(ROOT / name)
    assert parameters["profile"].annotation == "Profile"
    for parameter in parameters.values():
        assert parameter.help, parameter.name
        assert parameter.problem(parameter.default) is None
    code = [cell for cell in nbformat.read(ROOT / name, as_version=4).cells if cell.cell_type == "code"]
    assert "check_parameters(globals())" in code[1].source


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_papermill_lists_every_parameter_with_its_type_and_explanation(name):  # and warns of those that it does not
    listed = papermill.inspect_notebook(ROOT / name)
    told = {one["name"]: (one["inferred_type_name"], one["help"]) for one in listed.values()}
    assert told == {p.name: (p.annotation, p.help) for p in notebook_parameters(ROOT / name).values()}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_are_committed_without_outputs_but_for_those_that_are_checked(name):
    for cell in nbformat.read(ROOT / name, as_version=4).cells:
        if cell.cell_type != "code":
            continue
        checked = "nbval-check-output" in cell.metadata.get("tags", [])
        assert bool(cell.outputs) == checked, cell.source
        assert (cell.execution_count is not None) == checked, cell.source  # nbval compares only what has a count


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_are_thin(name):
    for cell in nbformat.read(ROOT / name, as_version=4).cells:
        if cell.cell_type == "code":
            assert ".backward()" not in cell.source
            bodies = re.findall(r"^def .*?\n((?:(?: .*)?\n)+)", cell.source + "\n", re.MULTILINE)
            assert all(len(body.strip().splitlines()) <= 8 for body in bodies)


@pytest.mark.slow
def test_nbval_finds_the_outputs_again_that_a_refresh_has_made(tmp_path, write_notebook):
    cells = [
        "from effbook.book.choices import Profile\n\nprofile: Profile = 'mini'  # the scale",
        CHECK,
        "print(6 * 7)",
    ]
    path = write_notebook(tmp_path / "a.ipynb", cells, more=["print('not checked')"])
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[2].metadata["tags"] = ["nbval-check-output"]
    nbformat.write(notebook, path)
    refresh_outputs(path)
    told = [cell.outputs for cell in nbformat.read(path, as_version=4).cells]
    assert [bool(outputs) for outputs in told] == [False, False, True, False]
    prepared = tmp_path / "prepared.ipynb"
    papermill.execute_notebook(
        path, prepared, {"profile": "smoke"}, prepare_only=True, progress_bar=False, kernel_name="python3"
    )
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=600"]
    command += ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(tmp_path), str(prepared)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    prepared.write_text(prepared.read_text().replace("6 * 7", "6 * 8"))
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout[-3000:]


@pytest.mark.slow
@pytest.mark.xdist_group("the whole book")
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_committed_outputs_come_out_again_at_smoke(name, smoke_book):
    work, _ = smoke_book
    executed = {cell.id: cell for cell in nbformat.read(work / "executed" / name, as_version=4).cells}
    for cell in nbformat.read(ROOT / name, as_version=4).cells:
        if "nbval-check-output" in cell.metadata.get("tags", []):
            assert told(executed[cell.id]) == told(cell), cell.source


def told(cell):
    """What a cell puts out, without what is no part of the content."""
    return [(output.output_type, output.get("name"), output.get("text"), output.get("data")) for output in cell.outputs]
