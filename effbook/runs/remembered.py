"""What was worked out of files that are unchanged since, kept for the next process: a help that may be missing.

It lies beside the kept results, as one JSON file a name, and counts only for the very state of the files it is of.
Where it is gone, damaged, of another state, or cannot be written, all is worked out anew. Times of change are in the
state, which no program can set back as it can those of writing: an edit of the same size shows, too.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import platformdirs

from effbook.errors import EffbookError
from effbook.files import write_atomically
from effbook.places import folder_named


def state_of(files: Iterable[str | Path]) -> str:
    """Stands for these files as they are now, by their paths, sizes and times, and for this Python."""
    told = [(str(file), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for file in files for stat in [os.stat(file)]]
    return hashlib.sha256(repr((sys.version, told)).encode()).hexdigest()


def recall(name: str, state: str) -> dict[str, Any]:
    """What was remembered under a name for this state; {} where there is nothing."""
    try:
        known = json.loads(_path(name).read_text(encoding="utf-8"))
        return known["content"] if known["state"] == state and isinstance(known["content"], dict) else {}
    except (OSError, ValueError, LookupError, TypeError, RecursionError, EffbookError):
        return {}


def remember(name: str, state: str, content: dict[str, Any]) -> None:
    """Keep what was worked out, in place of what was there; nothing is kept that JSON would change."""
    try:
        text = json.dumps({"state": state, "content": content}, allow_nan=False)
        if json.loads(text)["content"] == content:
            write_atomically(_path(name), text)
    except (OSError, ValueError, TypeError, EffbookError):
        return


def _path(name: str) -> Path:
    """As `runs.cache.work_root` has it, which needs the fingerprints that are kept here."""
    folder = folder_named("EFFBOOK_WORK", platformdirs.user_cache_path("effbook") / "work")
    return folder / f"remembered-{name}.json"
