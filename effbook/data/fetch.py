"""Fetching: try a manifest's sources in order, check every byte, and put the result in place in one step."""

import contextlib
import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock

from effbook.data.cache import (
    cache_folder,
    checksum,
    is_generated,
    lacks_optional,
    local_folders,
    problems,
    tree_checksum,
    write_stamp,
)
from effbook.data.manifest import File, LocalSource, Manifest, PackageSource, manifest
from effbook.data.sources import UNPACKING, Damaged, Report, SourceError, bring
from effbook.errors import EffbookError, system_error
from effbook.files import leftovers, remove, replace
from effbook.places import ready

ATTEMPTS = 2  # a broken download is fetched once more


def fetch(name: str, *, progress: bool = False, recheck: bool = False) -> Path:
    """Return the cache folder of a data set with its verified files, fetching them where they are missing or broken.

    With ``recheck`` every cached byte is read again first, and optional files that were lacking are asked for.
    Two processes may ask at once: one works, the other waits.
    Raises `EffbookError` that names every source and why it failed; what was cached before stays in place then.
    """
    described = manifest(name)
    folder = cache_folder() / name
    if is_generated(described):  # drawn in memory by the loaders: an empty folder is all there is
        return ready(folder)
    (ready(cache_folder()) / ".locks").mkdir(exist_ok=True)
    with FileLock(cache_folder() / ".locks" / f"{name}.lock"):
        sound = not problems(described, folder, rehash=recheck)
        if sound and not (recheck and lacks_optional(described, folder)):
            return folder
        for abandoned in [*cache_folder().glob(f".incoming-{name}.*"), *leftovers(folder)]:  # by a killed process
            remove(abandoned)
        failures = []
        for index, source, complete in _in_order(described):
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    with _reporter(name, progress) as report:
                        _fetch_from(described, index, folder, report, complete)
                    return folder
                except Damaged as error:
                    if attempt == ATTEMPTS:
                        failures.append(f"{source}: {error}")
                except SourceError as error:
                    failures.append(f"{source}: {error}")
                    break
                except OSError as error:  # a full disk, say
                    failures.append(f"{source}: {system_error(error).cause}")
                    break
    raise EffbookError(f"{name} could not be fetched ({'; '.join(failures)})", remedy(described))


def _in_order(described: Manifest):
    """The sources in order, those that may lack optional files a second time at the end, then content with less."""
    whole = [(index, source, True) for index, source in enumerate(described.sources)]
    return whole + [(i, s, False) for i, s, _ in whole if any(file.optional for file in getattr(s, "files", ()))]


def remedy(described: Manifest) -> str:
    """What to do for a data set that no source gave."""
    local = next((s for s in described.sources if isinstance(s, LocalSource)), None)
    online = f"run 'effbook data fetch {described.name}' where one of its sources can be reached"
    if local is None:
        return online
    wanted = [file.path for file in local.files if not file.optional] or local.needs
    put = f"put {' and '.join(wanted)} into {local_folders()[0] / local.folder} (see {described.homepage})"
    return put if len(described.sources) == 1 else f"{online}, or {put}"


def _fetch_from(described: Manifest, index: int, folder: Path, report: Report, complete: bool) -> None:
    source = described.sources[index]
    # On the same file system as the target, so that the last step is one rename.
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=f".incoming-{described.name}.") as scratch:
        incoming, staged = Path(scratch) / "incoming", Path(scratch) / "staged"
        incoming.mkdir()
        staged.mkdir()
        brought = bring(source, incoming, report)
        lacking = [file.path for file in getattr(source, "files", ()) if file.path not in brought]
        if complete and lacking:
            raise SourceError(f"it lacks {lacking[0]}")
        origins = {}
        if isinstance(source, LocalSource) and not source.files:  # too large to copy: link the folder's entries
            for entry in sorted(brought[""].iterdir()):
                (staged / entry.name).symlink_to(entry.resolve(), target_is_directory=entry.is_dir())
        elif isinstance(source, PackageSource) and source.registry == "hub":
            shutil.copytree(brought[""], staged, dirs_exist_ok=True, copy_function=shutil.move)
        else:
            for file in source.files:
                if file.path in brought:
                    origins[file.path] = _place(file, brought[file.path], incoming, staged)
        write_stamp(staged, described, index, origins)
        replace(staged, folder)


def _place(file: File, arrived: Path, incoming: Path, staged: Path) -> list[str]:
    """Check a file and move (or unpack) it into the staging folder; the paths that it became there."""
    _check(file, arrived)
    if file.unpack_to is None:
        target = staged / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if arrived.is_relative_to(incoming):
            arrived.rename(target)
        else:
            shutil.copyfile(arrived, target)
        return [file.path]
    target = staged / file.unpack_to
    target.mkdir(parents=True, exist_ok=True)
    try:
        if file.inner is not None:
            _unpack(arrived, incoming / "outer", "")
            arrived = incoming / "outer" / file.inner
        paths = _unpack(arrived, target, file.pick)
    except UNPACKING as error:
        raise Damaged(f"{file.path} cannot be unpacked ({error})") from error
    names = [path.relative_to(staged).as_posix() for path in paths]
    if file.tree_sha256:
        found = tree_checksum({name: checksum(staged / name) for name in names})
        if found != file.tree_sha256:
            raise Damaged(f"the content of {file.path} has been truncated or changed: its sum is {found[:12]}…")
    return names


def _check(file: File, arrived: Path) -> None:
    size = arrived.stat().st_size
    if file.size_bytes is not None and size < file.size_bytes:
        raise Damaged(f"{file.path} is truncated: {size} of {file.size_bytes} bytes")
    if file.size_bytes is not None and size > file.size_bytes:
        raise Damaged(f"{file.path} has been changed: {size} bytes where the manifest says {file.size_bytes}")
    for algorithm in ("sha256", "md5"):
        wanted = getattr(file, algorithm)
        if wanted is not None and (found := checksum(arrived, algorithm)) != wanted:
            raise Damaged(
                f"{file.path} has been changed: its {algorithm} is {found[:12]}… where the manifest says {wanted[:12]}…"
            )


def _unpack(archive: Path, target: Path, pick: str) -> list[Path]:
    """Unpack a tar or zip safely: members never leave ``target``, links out of it and devices are refused."""
    written = []
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for entry in opened.infolist():
                if entry.is_dir() or not entry.filename.startswith(pick):
                    continue
                entry.filename = entry.filename.removeprefix(pick)
                written.append(Path(opened.extract(entry, target)))
        return written
    with tarfile.open(archive) as opened:
        for entry in opened:
            if not entry.isfile() or not entry.name.removeprefix("./").startswith(pick):
                continue
            entry.name = entry.name.removeprefix("./").removeprefix(pick)
            opened.extract(entry, target, filter="data")
            written.append(target / entry.name)
    return written


@contextlib.contextmanager
def _reporter(name: str, progress: bool):
    """A download bar with time left where a person looks on; silence otherwise."""
    if not progress:
        yield lambda file, done, total: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task(f"fetching {name}", total=None)
        yield lambda file, done, total: bar.update(
            task, description=f"fetching {name}: {file}", completed=done, total=total
        )
