"""The one kind of error that effbook raises on purpose: a cause, and what to do about it."""

import errno
import os


class EffbookError(Exception):
    """A request that cannot be met, told in one sentence with its remedy.

    The command line prints the sentence and exits with status 1; in a library call it is an ordinary exception.
    """

    def __init__(self, cause: str, remedy: str = "") -> None:
        self.cause = cause.rstrip(".")
        self.remedy = remedy.rstrip(".")
        super().__init__(f"{self.cause}; {self.remedy}." if self.remedy else f"{self.cause}.")


def system_error(error: OSError) -> EffbookError:
    """What the system refused, as a sentence: which file, why, and what to do."""
    file = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes | os.PathLike) else ""
    place = _shortened(file) if file else "a file"
    code = error.errno
    if code in (errno.ENOSPC, errno.EDQUOT):
        where = f"that {place} is to be written to" if file else "that is written to"
        return EffbookError(f"the disk {where} is full", "free some space on it, and call again")
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        right = "read-only" if code == errno.EROFS else "permission denied"
        return EffbookError(
            f"{place} cannot be read or written ({right})",
            "give this user the right to it, or name another place (EFFBOOK_DATA, EFFBOOK_WORK, EFFBOOK_RECORDS)",
        )
    causes = {
        errno.ENOENT: (f"{place} is not there, or cannot be made", "check the path, and make the folder above it"),
        errno.ENOTDIR: (f"{place} cannot be a folder or lie in one, as a file is in its way", "name another place"),
        errno.EEXIST: (f"{place} is a file where a folder is needed", "move it away, or name another place"),
        errno.EISDIR: (f"{place} is a folder where a file is needed", "move it away, or name another place"),
        errno.ENAMETOOLONG: (f"the path {place} is longer than the file system allows", "use a shorter one"),
        errno.EMFILE: ("too many files are open", "raise the limit (ulimit -n), or use fewer --jobs"),
        errno.ENFILE: ("too many files are open on this machine", "close other programs, or use fewer --jobs"),
        errno.ENOMEM: ("the system has no memory left", "close other programs, or use fewer --jobs"),
    }
    why = (error.strerror or str(error) or type(error).__name__).lower()
    cause, remedy = causes.get(code, (f"{place} cannot be used ({why})", "check the disk and the path, and call again"))
    return EffbookError(cause, remedy)


def _shortened(path: str, longest: int = 200) -> str:
    """A path of which only head and tail are shown where it is very long."""
    return path if len(path) <= longest else f"{path[: longest // 2]}…{path[-longest // 4 :]}"
