"""A run told to another process, as plain JSON, and what such a process needs around it."""

import os
import sys
import threading
from datetime import datetime
from typing import Any

from effbook.runs.machine import THREAD_VARIABLES
from effbook.runs.recipe import Recipe, recipe_class, recipe_names


def order_of(recipe: Recipe, profile: str, fresh_since: datetime | None) -> dict[str, Any]:
    """What `one.answer` needs to know of a run, as plain JSON."""
    return {
        "name": recipe.name,
        "fields": recipe.fields,
        "profile": profile,
        "modules": [type(recipe).__module__, *_ours()],
        "fresh_since": fresh_since.isoformat() if fresh_since else None,
    }


def _ours() -> list[str]:
    """The modules of all recipes of this package: a run may depend on one of another chapter."""
    package = __name__.partition(".")[0] + "."
    return sorted({found for name in recipe_names() if (found := recipe_class(name).__module__).startswith(package)})


def environment(threads: int) -> dict[str, str]:
    """The environment of a process that runs the code that runs here; what the user said of threads goes first."""
    path = os.pathsep.join(path or os.getcwd() for path in sys.path)
    return dict.fromkeys(THREAD_VARIABLES, str(threads)) | os.environ | {"PYTHONPATH": path}


def end_with_input() -> None:
    """Have this process end, also in the middle of a run, when its standard input does: who asked is gone."""

    def listen() -> None:
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
