"""Taking records that were made elsewhere, after a look at all that can be checked: key, data, code, files."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Literal

from effbook.errors import EffbookError
from effbook.files import write_atomically
from effbook.runs import cache, locks, records
from effbook.runs.code import Sources, here
from effbook.runs.machine import records_folder
from effbook.runs.progress import Display
from effbook.runs.records import Record

Taken = Literal["added", "here"]


def take(files: Mapping[str, bytes], *, fresh_since: datetime | None = None) -> dict[str, Taken]:
    """Put records into the records' folder: path in it -> whether it was added, or a good one was here already.

    `files` are as `run_one` gives them. A record that is here stays, unless it cannot be read, is stale or is older
    than `fresh_since`. All are checked before the first is put in place; EffbookError says what is wrong with one.
    """
    sources = here()
    checked = {path: _checked(path, files, sources) for path in files if _is_record(path)}
    return {path: _place(path, record, files, sources, fresh_since) for path, record in checked.items()}


def records_in(folder: Path) -> list[dict[str, bytes]]:
    """The records in a folder that is laid out as ours is, each with its files."""
    if not folder.is_dir():
        raise EffbookError(f"{folder} is no folder", "name one that holds records: its folders are called mini, paper")
    found = []
    for path in sorted(folder.glob("*/*/*.json")):
        inside = sorted(one for one in path.with_suffix("").glob("*") if one.is_file())
        files = {one.relative_to(folder).as_posix(): one.read_bytes() for one in (path, *inside)}
        found.append(files)
    if not found:
        raise EffbookError(f"{folder} holds no records", "name the folder above mini, lab or paper")
    return found


def _is_record(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return len(parts) == 3 and path.endswith(".json")


def _checked(path: str, files: Mapping[str, bytes], sources: Sources) -> Record:
    """A record whose key fits its recipe and data, whose code is that which is here, and whose files are as it says."""
    record = records.parse(files[path], Path(path))
    what = f"the record {path}"
    try:
        recipe = record.make_recipe()
    except EffbookError as error:
        raise EffbookError(
            f"{what} is of a recipe that is not here ({error.cause})", "use the same code there"
        ) from None
    if path != records.path_of(recipe, record.profile).relative_to(records_folder()).as_posix():
        told, own = record.provenance.data, recipe.digests
        differing = ", ".join(name for name in sorted(told | own) if told.get(name) != own.get(name)) or "its name"
        raise EffbookError(f"{what} was made from other data than is described here ({differing})", "run it again")
    if records.is_stale(record, sources):
        commit = (record.provenance.commit or "unknown")[:10]
        raise EffbookError(
            f"{what} was made by other code (commit {commit})", "run it again with the code that is here"
        )
    for name, artifact in record.artifacts.items():
        inside = PurePosixPath(artifact.path)
        content = files.get((PurePosixPath(path).parent / inside).as_posix())
        if inside.parts[:-1] != (PurePosixPath(path).stem,) or content is None:
            raise EffbookError(f"{what} comes without its artifact {name}", "copy the folders beside records, too")
        if hashlib.sha256(content).hexdigest() != artifact.sha256 or len(content) != artifact.size_bytes:
            raise EffbookError(f"{what} has an artifact {name} that was changed", "copy it again")
    return record


def _place(
    path: str, record: Record, files: Mapping[str, bytes], sources: Sources, fresh_since: datetime | None
) -> Taken:
    target = records_folder() / path
    target.parent.mkdir(parents=True, exist_ok=True)
    with locks.holding(target, Display(quiet=True)):
        if _stands(target, sources, fresh_since):
            return "here"
        for artifact in record.artifacts.values():
            write_atomically(
                target.parent / artifact.path, files[(PurePosixPath(path).parent / artifact.path).as_posix()]
            )
        modules, told = record.make_recipe().modules(), record.provenance
        if sources.fingerprint(modules, told.accelerator) == told.fingerprint:
            records.keep_code(told.fingerprint, sources.listing(modules, told.accelerator))
        write_atomically(target, files[path])
        records.clear(target)
    return "added"


def _stands(target: Path, sources: Sources, fresh_since: datetime | None) -> bool:
    try:
        found = records.read(target) if target.exists() else None
    except EffbookError:
        return False
    if found is None or not cache.is_fresh(found.provenance.created, fresh_since):
        return False
    return not records.is_stale(found, sources)
