"""Records: the results of runs, with where they came from, as JSON files that are read back with suspicion."""

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from effbook.errors import EffbookError
from effbook.files import leftovers, placed, remove, write_atomically
from effbook.runs import attest, machine
from effbook.runs.cache import Taken, now
from effbook.runs.code import Device, Sources, here
from effbook.runs.machine import records_folder
from effbook.runs.profiles import check_profile
from effbook.runs.recipe import Recipe, Result, key_of, make

SCHEMA = 1
_REMEDY = "restore it from git, or run its recipe again with --fresh to replace it"

Number = int | Annotated[float, Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class RecipeOf(_Strict):
    """The recipe of a record, as JSON."""

    system: str
    name: str
    key: str
    fields: dict[str, Any]


class Artifact(_Strict):
    """A small file beside the record; the path is relative to the record's folder."""

    path: str
    sha256: str
    size_bytes: int


class CostOf(_Strict):
    """What a run took: wall seconds summed over its resumed parts, peak resident memory, FLOPs and joules if known."""

    wall_seconds: float
    peak_memory_bytes: int
    peak_gpu_bytes: int | None = None
    flops: float | None = None
    joules: float | None = None


class Provenance(_Strict):
    """Where a record came from."""

    commit: str | None
    dirty: bool | None
    fingerprint: str
    data: dict[str, str]
    packages: dict[str, str]
    device: str
    accelerator: Device = "cpu"  # whose engines ran: modules for other devices are not in the fingerprint
    threads: int
    created: str
    taken: tuple[Taken, ...] = ()  # what the run took from a cache, and did not make itself


class Record(_Strict):
    """The result of one run."""

    schema_version: Literal[1] = SCHEMA
    recipe: RecipeOf
    profile: str
    metrics: dict[str, Number | None]
    series: dict[str, list[Number]] = {}
    notes: dict[str, str] = {}
    artifacts: dict[str, Artifact] = {}
    cost: CostOf
    provenance: Provenance

    @model_validator(mode="after")
    def _key_fits(self) -> "Record":
        if key_of(self.recipe.name, self.recipe.fields, self.provenance.data) != self.recipe.key:
            raise ValueError("its key does not fit its recipe")
        return self

    @property
    def key(self) -> str:
        """The recipe's key."""
        return self.recipe.key

    def make_recipe(self) -> Recipe:
        """The recipe again, as an object."""
        return make(self.recipe.name, **self.recipe.fields)

    def as_taken(self) -> Taken:
        """This record, as that of a run which depends on it names it."""
        told = self.provenance
        known = {"fingerprint": told.fingerprint, "commit": told.commit, "dirty": told.dirty, "created": told.created}
        return Taken(kind="record", key=f"{self.recipe.name}-{self.key}", **known)

    def artifact(self, name: str) -> Path:
        """The path of an artifact, checked against its sha256."""
        if name not in self.artifacts:
            raise EffbookError(f"the record {self.key} has no artifact {name!r}", "look at its `artifacts`")
        entry = self.artifacts[name]
        path = records_folder() / self.profile / self.recipe.system / entry.path
        if not path.exists() or _sha256(path) != entry.sha256:
            raise EffbookError(f"{path} is missing or changed", "restore it, or run the recipe again with --fresh")
        return path


def path_of(recipe: Recipe, profile: str) -> Path:
    """Where the record of a recipe under a profile is, or will be."""
    return records_folder() / check_profile(profile) / recipe.system / f"{recipe.name}-{recipe.key}.json"


def find(recipe: Recipe, profile: str) -> Record | None:
    """The record of the recipe under the profile; None if there is none, EffbookError if it cannot be read."""
    path = path_of(recipe, profile)
    return read(path) if path.exists() else None


def read(path: Path) -> Record:
    """A record from its file, validated; EffbookError names the file and the remedy."""
    try:
        return parse(path.read_bytes(), path)
    except OSError as error:
        raise EffbookError(f"the record {path} cannot be read ({error})", _REMEDY) from None


def parse(text: str | bytes, path: Path) -> Record:
    """A record from the text of the file at `path`, validated; EffbookError names the file and the remedy."""
    try:
        content = json.loads(text.decode("utf-8") if isinstance(text, bytes) else text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise EffbookError(f"the record {path} cannot be read ({error})", _REMEDY) from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA:
        raise EffbookError(f"the record {path} has schema version {version}, not {SCHEMA}", _REMEDY)
    try:
        record = Record.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "record"
        raise EffbookError(f"the record {path} is not valid ({where}: {first['msg']})", _REMEDY) from None
    if (record.profile, record.recipe.system, f"{record.recipe.name}-{record.key}") != (
        path.parent.parent.name,
        path.parent.name,
        path.stem,
    ):
        raise EffbookError(f"the record {path} does not belong under that name", _REMEDY)
    return record


def all_records(profile: str) -> list[Record]:
    """Every record of a profile, in the order of their paths."""
    folder = records_folder() / check_profile(profile)
    return [read(path) for path in sorted(folder.glob("*/*.json"))]


def write(
    recipe: Recipe,
    profile: str,
    result: Result,
    *,
    fingerprint: str,
    modules: dict[str, str],
    accelerator: Device,
    cost: CostOf,
    taken: tuple[Taken, ...] = (),
) -> Record:
    """Write the record of a result, whole or not at all; a record that was there is replaced at the last moment.

    `fingerprint` and `modules` (hashes by name) tell the code as it was when the run began.
    """
    _check(recipe, result)
    path = path_of(recipe, profile)
    commit, dirty = machine.commit()
    artifacts = {name: _keep(Path(file), path) for name, file in result.artifacts.items()}
    record = Record(
        recipe=RecipeOf(system=recipe.system, name=recipe.name, key=recipe.key, fields=recipe.fields),
        profile=profile,
        metrics=result.metrics,
        series=result.series,
        notes=result.notes,
        artifacts=artifacts,
        cost=cost,
        provenance=Provenance(
            commit=commit,
            dirty=dirty,
            fingerprint=fingerprint,
            data=recipe.digests,
            packages=machine.packages(),
            device=machine.device(),
            accelerator=accelerator,
            threads=machine.threads(),
            created=now(),
            taken=taken,
        ),
    )
    content = record.model_dump(mode="json")
    if not taken:
        del content["provenance"]["taken"]
    keep_code(fingerprint, modules)
    write_atomically(path, json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")
    clear(path)
    return record


def clear(path: Path) -> None:
    """Remove what is left of earlier runs of a record; the caller holds its lock."""
    for left in [*leftovers(path), *unnamed_artifacts(path)]:
        remove(left)
    folder = path.with_suffix("")
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def unnamed_artifacts(path: Path) -> list[Path]:
    """Files in a record's folder of artifacts that it doesn't name: of a record replaced, or of one never written."""
    folder = path.with_suffix("")
    if not folder.is_dir():
        return []
    try:
        entries = read(path).artifacts.values() if path.exists() else ()
    except EffbookError:  # nobody knows what a damaged record names
        return []
    named = {path.parent / entry.path for entry in entries}
    return sorted(file for file in folder.iterdir() if file not in named)


Standing = Literal["measured", "rechecked", "stale"]


def standing(record: Record, sources: Sources | None = None) -> Standing:
    """Whether the code that is here made the record, or a recheck attests that it gives the same numbers, or neither.

    `sources` are for who asks many times in a row.
    """
    return standing_and_attestation(record, sources)[0]


def standing_and_attestation(
    record: Record, sources: Sources | None = None
) -> tuple[Standing, attest.Attestation | None]:
    """Both at once, for who wants both: the attestation is None for a record of the code that is here."""
    now = current_fingerprint(record, sources)
    if now == record.provenance.fingerprint:
        return "measured", None
    found = _attested(record, now)
    return "rechecked" if found is not None and found.agrees else "stale", found


def is_stale(record: Record, sources: Sources | None = None) -> bool:
    """Whether the record's numbers come from other code, and nothing attests that they are still the same."""
    return standing(record, sources) == "stale"


def current_fingerprint(record: Record, sources: Sources | None = None) -> str | None:
    """The fingerprint of the code that would make the record now; None if its recipe is gone or has other fields."""
    try:
        modules = record.make_recipe().modules()
        return (sources or here()).fingerprint(modules, record.provenance.accelerator)
    except EffbookError:
        return None


def attestation(record: Record, sources: Sources | None = None) -> attest.Attestation | None:
    """What the last recheck of such records with the code that is here found; None if there was none."""
    return _attested(record, current_fingerprint(record, sources))


def _attested(record: Record, now: str | None) -> attest.Attestation | None:
    fields, old = record.recipe.fields, record.provenance.fingerprint
    return attest.find(records_folder(), record.recipe.name, fields, old, now) if now else None


def code_path(fingerprint: str) -> Path:
    """Where the hashes of the modules that a fingerprint covers are kept, once for all records that have it."""
    return records_folder() / "code" / f"{fingerprint}.json"


def keep_code(fingerprint: str, modules: dict[str, str]) -> None:
    """Keep the hash of each module that a fingerprint covers, unless it is kept already."""
    path = code_path(fingerprint)
    if not path.exists():
        write_atomically(path, json.dumps(modules, indent=1, sort_keys=True) + "\n")


def _check(recipe: Recipe, result: Result) -> None:
    """Refuse what strict JSON cannot hold, before anything is written."""
    for name, values in [*((n, [v]) for n, v in result.metrics.items()), *result.series.items()]:
        for value in values:
            if isinstance(value, float) and not math.isfinite(value):
                raise EffbookError(
                    f"{recipe.name} {recipe.key} measured {name} = {value}",
                    "give None and a note where a metric does not exist; the work folder and all records are kept",
                )


def _keep(file: Path, record_path: Path) -> Artifact:
    """Copy an artifact beside the record under a name with its hash, so that an older record's stays whole."""
    digest = _sha256(file)
    target = record_path.with_suffix("") / f"{file.stem}-{digest[:8]}{file.suffix}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with placed(target) as beside:
        shutil.copyfile(file, beside)
    relative = target.relative_to(record_path.parent).as_posix()
    return Artifact(path=relative, sha256=digest, size_bytes=target.stat().st_size)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not strict JSON")
