"""One run, told and answered in plain values, so that any launcher can have it done anywhere: names in, bytes out."""

import importlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from effbook.errors import EffbookError
from effbook.runs import attest, records
from effbook.runs.execute import execute
from effbook.runs.machine import records_folder
from effbook.runs.recipe import Recipe, make


def run_one(
    name: str,
    fields: dict[str, Any],
    profile: str,
    *,
    modules: Sequence[str] = (),
    fresh_since: datetime | None = None,
) -> dict[str, bytes]:
    """Do a run, or find it recorded, and give the files that make up its record: path in the records' folder -> bytes.

    `modules` are those that define the recipe and whatever it depends on. Records that it depends on come with it.
    """
    for module in modules:
        importlib.import_module(module)
    recipe = make(name, **fields)
    execute(recipe, profile=profile, fresh_since=fresh_since, quiet=True)
    return files_of(recipe, profile)


def answer(order: dict[str, Any]) -> dict[str, Any]:
    """Do the run of an order: {"files": ...}, or what went wrong in words that can travel."""
    since = order["fresh_since"] and datetime.fromisoformat(order["fresh_since"])
    try:
        return {"files": run_one(**order | {"fresh_since": since})}
    except EffbookError as error:
        return {"cause": error.cause, "remedy": error.remedy}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def failure_in(answer: dict[str, Any]) -> Exception | None:
    """What an answer says went wrong, as the exception that it was, or nearly."""
    if "cause" in answer:
        return EffbookError(answer["cause"], answer["remedy"])
    return RuntimeError(answer["error"]) if "error" in answer else None


def files_of(recipe: Recipe, profile: str) -> dict[str, bytes]:
    """The files of a record and of those that it depends on; {} for what is not recorded."""
    files = {path: content for other in recipe.depends() for path, content in files_of(other, profile).items()}
    if (record := records.find(recipe, profile)) is not None:
        path = records.path_of(recipe, profile)
        artifacts = [record.artifact(name) for name in record.artifacts]
        code = records.code_path(record.provenance.fingerprint)
        own = [path, *artifacts, *([code] if code.exists() else [])]
        files |= {one.relative_to(records_folder()).as_posix(): one.read_bytes() for one in own}
    return files


def needed_by(recipe: Recipe, profile: str) -> dict[str, bytes]:
    """What a run elsewhere may want of the records here: those that it depends on, and what rechecks attest."""
    files = {path: content for other in recipe.depends() for path, content in files_of(other, profile).items()}
    attested = records_folder() / attest.FILE
    if files and attested.exists():
        files[attest.FILE] = attested.read_bytes()
    return files


def put(files: dict[str, bytes], folder: Path) -> None:
    """Write files into a new records' folder, as they are."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
