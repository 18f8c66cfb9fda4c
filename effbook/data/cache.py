"""The cache of fetched data: one folder a data set, with a stamp that says what lies in it and whence."""

import hashlib
import json
import os
from pathlib import Path

import platformdirs

from effbook.data.manifest import GeneratedSource, LocalSource, Manifest, manifest
from effbook.places import expanded, folder_named

STAMP = ".effbook.json"
STAMP_VERSION = 1


def cache_folder() -> Path:
    """$EFFBOOK_DATA, or the platform's user cache directory."""
    return folder_named("EFFBOOK_DATA", Path(platformdirs.user_cache_dir("effbook", appauthor=False)) / "data")


def local_folders() -> list[Path]:
    """Where `local` sources are looked for: $EFFBOOK_LOCAL, else ``shared/data`` beside the checkout."""
    parts = os.environ.get("EFFBOOK_LOCAL", "").split(os.pathsep)
    given = [expanded("EFFBOOK_LOCAL", part) for part in parts if part.strip()]
    return given or [Path(__file__).resolve().parents[3] / "shared" / "data"]


def checksum(path: Path, algorithm: str = "sha256") -> str:
    """Hex digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def tree_checksum(sums: dict[str, str]) -> str:
    """Identity of a folder's content from {relative path: sha256}."""
    lines = "".join(f"{path} {sums[path]}\n" for path in sorted(sums))
    return hashlib.sha256(lines.encode()).hexdigest()


def write_stamp(folder: Path, described: Manifest, source_index: int, origins: dict[str, list[str]]) -> None:
    """Record every file below ``folder`` with its size, time and sha256, and which manifest file it came from.

    ``origins`` maps the path of a manifest's file to the paths that it became here.
    """
    files = {}
    links = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            links[name] = str(path.resolve())
        elif path.is_file():
            status = path.stat()
            files[name] = [status.st_size, status.st_mtime_ns, checksum(path)]
    content = {
        "version": STAMP_VERSION,
        "name": described.name,
        "source": str(described.sources[source_index]),
        "origins": origins,
        "files": files,
        "links": links,
    }
    (folder / STAMP).write_text(json.dumps(content), encoding="utf-8")


def read_stamp(folder: Path) -> dict | None:
    """What `write_stamp` wrote; None where there is nothing of the kind."""
    try:
        content = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        whole = content["version"] == STAMP_VERSION and isinstance(content["source"], str)
        whole = whole and all(isinstance(content[part], dict) for part in ("origins", "files", "links"))
        whole = whole and all(len(entry) == 3 for entry in content["files"].values())
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return content if whole else None


def is_generated(described: Manifest) -> bool:
    return isinstance(described.sources[0], GeneratedSource)


def problems(described: Manifest, folder: Path, *, rehash: bool) -> list[str]:
    """What is wrong with a cached folder, [] if nothing; without ``rehash`` an unchanged time is trusted."""
    stamp = read_stamp(folder)
    if stamp is None:
        return ["it has not been fetched"]
    sources = {str(source): source for source in described.sources}
    source = sources.get(stamp["source"])
    if source is None:
        return [f"it was fetched from {stamp['source']}, which the manifest no longer names"]
    found = []
    sums = {}
    for name, (size, time_ns, sha256) in stamp["files"].items():
        path = folder / name
        sums[name] = sha256
        if not path.is_file():
            found.append(f"{name} is missing")
            continue
        status = path.stat()
        if status.st_size != size:
            found.append(f"{name} has {status.st_size} bytes instead of {size}")
        elif (rehash or status.st_mtime_ns != time_ns) and checksum(path) != sha256:
            found.append(f"{name} does not have its sha256 {sha256[:12]}…")
    found += [f"the linked {target} is gone" for target in stamp["links"].values() if not Path(target).exists()]
    if isinstance(source, LocalSource):
        found += [f"{needed} is missing" for needed in source.needs if not (folder / needed).exists()]
    # The stamp lies in the cache as well: what the manifest pins is compared with the manifest's own sums.
    for file in getattr(source, "files", ()):
        paths = stamp["origins"].get(file.path)
        if paths is None:
            if not file.optional:
                found.append(f"{file.path} is missing")
        elif file.unpack_to is None and file.sha256 and sums.get(paths[0]) != file.sha256:
            found.append(f"{file.path} is not the file that the manifest pins")
        elif file.tree_sha256 and tree_checksum({p: sums.get(p, "") for p in paths}) != file.tree_sha256:
            found.append(f"the content of {file.path} is not what the manifest pins")
    return found


def lacks_optional(described: Manifest, folder: Path) -> bool:
    """Whether a cached folder is sound but came from a source without some optional file."""
    stamp = read_stamp(folder)
    source = next((s for s in described.sources if stamp and str(s) == stamp["source"]), None)
    return any(file.optional and file.path not in stamp["origins"] for file in getattr(source, "files", ()))


def is_cached(name: str) -> bool:
    """Whether `fetch` would have nothing to do (sizes and times are looked at, bytes are not read again)."""
    described = manifest(name)
    return is_generated(described) or not problems(described, cache_folder() / name, rehash=False)


def verify(name: str) -> list[str]:
    """Read every byte again and return the problems, [] if all is well.

    An entry that begins with "unpinned" is no damage: nobody has published a checksum for that file.
    """
    described = manifest(name)
    if is_generated(described):
        from effbook.data.generated import content_checksum

        source = described.sources[0]
        same = content_checksum(source.generator) == source.sha256
        return [] if same else [f"{source} does not draw the content that the manifest pins"]
    folder = cache_folder() / name
    found = problems(described, folder, rehash=True)
    stamp = read_stamp(folder)
    if stamp is not None:
        for source in described.sources:
            if str(source) == stamp["source"]:
                loose = [f.path for f in getattr(source, "files", ()) if not f.pinned and f.path in stamp["origins"]]
                found += [f"unpinned: {path} has no published checksum" for path in loose]
                if stamp["links"] or (not loose and not getattr(source, "files", ())):
                    found.append(f"unpinned: {source} has no checksums in the manifest")
    return found
