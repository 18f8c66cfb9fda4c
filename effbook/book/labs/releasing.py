"""Hands a lab out: a zip for students, and the instructor's notebook beside it."""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbformat import NotebookNode

from effbook.book.labs import cells as labs
from effbook.errors import EffbookError
from effbook.files import placed, write_atomically

SOURCES = ("effbook", "data_manifests", "pyproject.toml", "README.md")  # what a wheel is made of
README = """# {title}

1. Unpack this folder and open a terminal in it. You need Python 3.11 or newer.
2. `python -m venv .venv`, then activate it: `. .venv/bin/activate` (Windows: `.venv\\Scripts\\activate`).
3. `pip install {wheel} {needs}`
4. `jupyter lab {notebook}`

Write where it says `YOUR CODE HERE` and `YOUR ANSWER HERE`, run the notebook from its first cell, and hand in the file
`{notebook}` with its name unchanged. {data}
"""
NEEDS = ("jupyterlab", "matplotlib")


class Released(NamedTuple):
    """The zip for students and the instructor's notebook."""

    archive: Path
    instructor: Path


def release(lab: str, *, out: Path, source: Path | None = None, wheel: Path | None = None) -> Released:
    """Write OUT/NAME.zip and OUT/NAME-instructor.ipynb.

    The zip holds the student's notebook, the wheel of this very effbook (or the one given), how to install it, and the
    data that the lab reads, where this machine has them; else the notebook fetches them. Raises EffbookError for a
    notebook with faults, or where the wheel cannot be built.
    """
    notebook = labs.instructor(lab, source)
    out.mkdir(parents=True, exist_ok=True)
    archive, name = out / f"{lab}.zip", f"{lab}.ipynb"
    with tempfile.TemporaryDirectory() as folder, placed(archive) as beside:
        wheel = wheel or build_wheel(Path(folder))
        with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr(f"{lab}/{name}", nbformat.writes(labs.student_version(notebook)))
            packed.write(wheel, f"{lab}/{wheel.name}")
            held = [_pack(packed, lab, data) for data in _data_of(notebook)]
            packed.writestr(f"{lab}/README.md", _readme(notebook, wheel.name, name, all(held)))
    kept = out / f"{lab}-instructor.ipynb"
    write_atomically(kept, nbformat.writes(notebook))
    return Released(archive, kept)


def build_wheel(folder: Path) -> Path:
    """The wheel of this checkout, made in `folder` from a copy, so that nothing is left in the sources."""
    from effbook.book.places import repository_root

    root, copied = repository_root(), folder / "source"
    copied.mkdir()
    for name in SOURCES:
        path = root / name
        if path.is_dir():
            shutil.copytree(path, copied / name, ignore=shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc"))
        else:
            shutil.copy2(path, copied / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "--wheel-dir", str(folder), str(copied)], capture_output=True, text=True)
    made = sorted(folder.glob("*.whl"))
    if done.returncode or not made:
        why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise EffbookError(f"the wheel cannot be built ({why})", "run 'make env', and call again from the checkout")
    return made[0]


def _data_of(notebook: NotebookNode) -> list[str]:
    return list(notebook.metadata.get("effbook", {}).get("data", ()))


def _pack(packed: zipfile.ZipFile, lab: str, name: str) -> bool:
    """Put the files of a data set into the zip; whether they are here."""
    from effbook import data

    if not data.is_cached(name):
        return False
    folder = data.cache_folder() / name
    wanted = {file.path for one in data.manifest(name).sources if one.kind == "package" for file in one.files}
    for path in sorted(wanted):
        packed.write(folder / path, f"{lab}/data/{name}/{path}")
    return True


def _readme(notebook: NotebookNode, wheel: str, name: str, with_data: bool) -> str:
    told = notebook.metadata.get("effbook", {})
    needs = " ".join((*NEEDS, *told.get("needs", ())))
    data = "The data are in this folder." if with_data else "The notebook fetches its data when it first runs."
    title = notebook.cells[0].source.splitlines()[0].lstrip("# ")
    return README.format(title=title, wheel=wheel, needs=needs, notebook=name, data=data)
