"""Executes the notebooks of the book, some at a time, and again only where what they depend on has changed."""

import hashlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from effbook.book.notebooks import Job, environment, notebook_parameters, run_notebooks
from effbook.book.places import toc_files
from effbook.errors import EffbookError

CODE = (".py", ".yaml", ".html")  # of the package: what makes the outputs of a notebook


def toc_notebooks(root: Path) -> list[str]:
    """The notebooks that _toc.yml names, as paths from the root, in order."""
    files = [name for name in toc_files(root) if name.startswith("notebooks/")]
    return [f"{name.removesuffix('.ipynb')}.ipynb" for name in files]


def execute(
    root: Path,
    names: list[str],
    *,
    profile: str,
    work: Path,
    say: Callable[[str], None],
    jobs: int = 1,
    fresh: bool = False,
) -> list[str]:
    """Run notebooks into `work`/executed, `jobs` at a time, unless their last runs there still stand; name those run.

    All are tried. Raises EffbookError with the first failure, in the order of `names`, where any failed.
    """
    common = _common()
    states = {name: _digest(profile, name, (root / name).read_bytes(), common) for name in names}
    to_do = {
        root / name: Job(path=root / name, out=work / "executed" / name, parameters=_wanted(root / name, profile))
        for name in names
        if fresh or not _stands(work, name, states[name])
    }
    if len(to_do) < len(names):
        say(f"{len(names) - len(to_do)} of {len(names)} notebooks: unchanged")
    failures: dict[str, Exception] = {}
    smoke_records = str(work / "records")  # their numbers mean nothing: not among the book's
    with environment("EFFBOOK_RECORDS", smoke_records) if profile == "smoke" else nullcontext():
        for count, (job, error) in enumerate(run_notebooks(list(to_do.values()), at_a_time=jobs), start=1):
            name = job.path.relative_to(root).as_posix()
            say(f"[{count}/{len(to_do)}] {name}: {f'failed: {error}' if error else 'executed'}")
            if error:
                failures[name] = error
            else:
                _stamp(work, name).write_text(states[name])
    if failures:
        first = failures[next(name for name in names if name in failures)]
        if len(failures) == 1 and isinstance(first, EffbookError):
            raise first
        why = first.cause if isinstance(first, EffbookError) else f"{type(first).__name__}: {first}"
        raise EffbookError(
            f"{len(failures)} of {len(to_do)} notebooks failed, the first because: {why}", "see the lines above"
        ) from first
    return [path.relative_to(root).as_posix() for path in to_do]


def _wanted(path: Path, profile: str) -> dict[str, object]:
    """The parameters that a build gives: only `smoke` computes runs that are missing."""
    wanted = {"profile": profile, "runs": "missing" if profile == "smoke" else "recorded"}
    return {key: value for key, value in wanted.items() if key in notebook_parameters(path)}


def _stamp(work: Path, name: str) -> Path:
    return (work / "executed" / name).with_suffix(".sha256")


def _stands(work: Path, name: str, state: str) -> bool:
    stamp = _stamp(work, name)
    return (work / "executed" / name).is_file() and stamp.is_file() and stamp.read_text() == state


def _common() -> str:
    """A digest of what all executed notebooks depend on: the package, the records, what data is here."""
    from effbook import data
    from effbook.runs import records

    package, kept = Path(__file__).resolve().parents[1], records.records_folder()
    files = [path for path in package.rglob("*") if path.suffix in CODE]
    files += [path for pattern in ("*/*/*.json", "code/*.json", "*.jsonl") for path in kept.glob(pattern)]
    here = " ".join(name for name in data.manifests() if data.is_cached(name))
    return _digest(*(part for path in sorted(files) for part in (path.name, path.read_bytes())), here)


def _digest(*parts: str | bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part.encode() if isinstance(part, str) else part).digest())
    return whole.hexdigest()
