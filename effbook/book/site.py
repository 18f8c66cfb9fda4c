"""Builds the site: runs the notebooks, lays sources and executed notebooks into a staging folder, calls jupyter-book.

    _build/<profile>/executed/   the executed notebooks, kept while nothing that they depend on changes
    _build/<profile>/stage/      what jupyter-book reads: the same paths as in the repository
    _build/<profile>/html/       the site, replaced only by a build that went through
    _build/smoke/records/        the records of smoke runs, whose numbers mean nothing

`build` keeps to one folder that it is given instead, where a test wants one.
"""

import ast
import functools
import http.server
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
from filelock import FileLock

from effbook.book import pages, viewer
from effbook.book.check import check_site
from effbook.book.execution import execute, toc_notebooks
from effbook.book.parameters import parse_parameters
from effbook.book.places import repository_root
from effbook.errors import EffbookError
from effbook.files import leftovers, remove, replace

MATHJAX = "tex-svg-full.js"  # one file, no fonts: works from file:// in every browser
SPHINX = "from jupyter_book.cli.main import main; main()"


def build(
    profile: str = "mini",
    *,
    root: Path | str | None = None,
    work: Path | str | None = None,
    fresh: bool = False,
    jobs: int | None = None,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Build the book at a profile and return the site's folder.

    Recorded runs are used; only `smoke` computes its runs (into a folder of its own). `jobs` notebooks run at a time
    (default: 2, or 1 where there is one core); `fresh` executes notebooks again that nothing has changed for. Raises
    EffbookError with the first cause if a notebook fails, sphinx warns or the site would load something from
    elsewhere; the site built before then stays.
    """
    from effbook.runs import machine
    from effbook.runs.profiles import check_profile

    check_profile(profile)
    if jobs is not None and jobs < 1:
        raise EffbookError(f"--jobs {jobs} is below 1", "give 1 or more")
    root = Path(root) if root is not None else repository_root()
    say = say or functools.partial(print, file=sys.stderr, flush=True)
    work = Path(work) if work is not None else root / "_build" / profile
    work.mkdir(parents=True, exist_ok=True)
    notebooks = toc_notebooks(root)
    jobs = min(2, machine.cores()) if jobs is None else jobs
    with FileLock(work / ".lock"):
        execute(root, notebooks, profile=profile, work=work, say=say, jobs=jobs, fresh=fresh)
        lay_out(root, work, notebooks=notebooks, profile=profile)
        say("building the pages")
        html = run_sphinx(work / "stage", work / "sphinx")
        check_site(html)
        return _replace(html, work / "html")


def serve(port: int = 8000) -> None:
    """Serve the site that was built last, on this machine only, until interrupted."""
    built = sorted((repository_root() / "_build").glob("*/html/index.html"), key=lambda page: page.stat().st_mtime)
    if not built:
        raise EffbookError("The site is not built yet", "run 'make book' or 'effbook book build'")
    site = built[-1].parent
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise EffbookError(f"Port {port} is taken ({error.strerror})", "stop the program that holds it") from error
    with server:
        print(f"http://127.0.0.1:{port}/  (stop with Ctrl-C)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


# --- staging and building ---------------------------------------------------------------------------------------------


def lay_out(root: Path, work: Path, *, notebooks: list[str], profile: str) -> None:
    """Fill `work`/stage: pages, executed notebooks, the code that pages quote, records, styles, MathJax."""
    stage, executed = work / "stage", work / "executed"
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy2(root / name, stage / name)
    shutil.copytree(root / "book", stage / "book", ignore=shutil.ignore_patterns("records", "_static"))
    shutil.copytree(root / "book" / "_static", stage / "_static")
    shutil.copytree(root / "book" / "_static", stage / "book" / "_static")
    for name in notebooks:
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        notebook = nbformat.read(executed / name, as_version=4)
        hide_injected(notebook)
        nbformat.write(notebook, stage / name)
    package = Path(__file__).resolve().parents[1]
    shutil.copytree(package, stage / "effbook", ignore=shutil.ignore_patterns("__pycache__"))
    records = root / "book" / "records"
    extra = stage / "extra"
    extra.mkdir()
    if records.is_dir():
        shutil.copytree(records, extra / "records", ignore=shutil.ignore_patterns("smoke", "*.lock"))
    # Not in _static itself: jupyter-book would then load every script there on every page, this one twice.
    (extra / "_static" / "mathjax").mkdir(parents=True)
    shutil.copy2(mathjax(), extra / "_static" / "mathjax" / MATHJAX)
    if any("effbookSplats" in (stage / name).read_text(encoding="utf-8") for name in notebooks):
        (extra / viewer.PLACE).parent.mkdir(parents=True)
        (extra / viewer.PLACE).write_text(viewer.script() or "", encoding="utf-8")
    pages.write_generated(stage, profile=profile, version=importlib.metadata.version("effbook"))


def hide_injected(notebook: nbformat.NotebookNode) -> None:
    """Leave the cell that papermill injected out of the page where it repeats the defaults."""
    cells = notebook.cells
    declared = next((parse_parameters(c.source) for c in cells if "parameters" in c.metadata.get("tags", [])), {})
    for cell in cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            given = {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(cell.source).body}
            given.pop("runs", None)  # whether missing runs are computed changes nothing that the page says
            if all(declared[name].default == value for name, value in given.items()):
                cell.metadata.tags.append("remove-cell")


def mathjax() -> Path:
    """The MathJax file, from the data cache; fetched from its package where it isn't there."""
    from effbook import data

    return data.fetch("mathjax") / MATHJAX


def run_sphinx(stage: Path, out: Path) -> Path:
    """Call jupyter-book on the staging folder, with every warning an error; return the folder of the pages."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-c", SPHINX, "build", str(stage), "--path-output", str(out)]
    command += ["-n", "-W", "--keep-going", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=stage, env={**os.environ, "NO_COLOR": "1"})
    html = out / "_build" / "html"
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    if done.returncode != 0 or not (html / "index.html").is_file():
        (out / "sphinx.log").parent.mkdir(parents=True, exist_ok=True)
        (out / "sphinx.log").write_text(said)
        told = [line.strip() for line in said.splitlines() if re.search(r"WARNING|ERROR|Error", line)]
        first = told[0].replace(f"{stage}/", "") if told else "no reason given"
        raise EffbookError(
            f"Building the pages failed with {len(told)} warnings, the first: {first}", f"see {out / 'sphinx.log'}"
        )
    return html


def _replace(new: Path, old: Path) -> Path:
    """Put the new site where the old one was; the gap between the two is one rename."""
    for left in leftovers(old):  # by a build that was killed
        remove(left)
    replace(new, old)
    return old
