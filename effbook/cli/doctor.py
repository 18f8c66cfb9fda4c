"""The command doctor."""

import importlib.metadata
import importlib.util
import shutil

import typer

from effbook.errors import EffbookError


def register_commands(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(doctor)


def doctor() -> None:
    """What this machine can run, and what is missing."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from effbook.runs.profiles import PROFILES

    console = Console()
    for title, rows in (
        ("Machine", _machine()),
        ("Optional", _optional()),
        ("Data", _data()),
        ("Profiles", [(profile, *_profile(profile)) for profile in PROFILES]),
    ):
        table = Table(title=title, show_header=False, title_justify="left")
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        console.print(table)


def _machine() -> list[tuple[str, str]]:
    import psutil

    from effbook.runs import machine

    gpu = machine.gpu_bytes()
    return [
        ("processor", f"{machine.device()}, {psutil.virtual_memory().total / machine.GIB:.0f} GiB of memory"),
        ("GPU", f"{gpu / machine.GIB:.0f} GiB" if gpu else "none: lab and most of paper wait for a CUDA GPU"),
        ("torch", _version("torch") or "missing: pip install -r requirements.txt"),
    ]


def _optional() -> list[tuple[str, str]]:
    rows = []
    for program, purpose in (("java", "METEOR"), ("npm", "data from that registry"), ("git", "provenance of records")):
        rows.append((program, shutil.which(program) or f"missing: needed for {purpose}"))
    for package, purpose in (("bitsandbytes", "an 8-bit base"), ("torchao", "an 8-bit base, other kind")):
        rows.append((package, _version(package) or f"missing: pip install {package}, for {purpose}"))
    return rows + _text_metrics()


def _text_metrics() -> list[tuple[str, str]]:
    if importlib.util.find_spec("effbook.evaluate.text") is None:
        return []
    from effbook.evaluate import text

    return [(metric, f"missing: {why}") for metric, why in text.available().items() if why]


def _data() -> list[tuple[str, str]]:
    from effbook import data
    from effbook.data.cache import cache_folder
    from effbook.runs import machine

    folder = cache_folder()
    exists = next(parent for parent in (folder, *folder.parents) if parent.exists())
    cached = [name for name in data.manifests() if data.is_cached(name)]
    return [
        ("cache", f"{folder} ({shutil.disk_usage(exists).free / machine.GIB:.0f} GiB free)"),
        ("cached", ", ".join(cached) or "nothing yet: effbook data fetch"),
    ]


def _profile(profile: str) -> tuple[str, str]:
    """How many runs of the register can run here, and what the others lack."""
    from effbook.exhibits import recipes_of
    from effbook.runs import machine

    try:
        recipes = recipes_of("all", profile)
    except EffbookError as error:
        return "no runs", str(error)
    if not recipes:
        return "no runs", "no recipe is registered for this profile"
    lacks = [machine.missing(recipe.needs()) for recipe in recipes]
    able = sum(not lack for lack in lacks)
    missing = sorted({item for lack in lacks for item in lack})
    return f"{able} of {len(recipes)} runs", f"missing: {', '.join(missing)}" if missing else "complete"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
