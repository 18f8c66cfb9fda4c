"""What a recheck runs in a process of its own, by the code of any commit: `python -P probing.py` with PYTHONPATH set.

It reads a JSON request from standard input, {"name", "chapter", "fields": [...], "run": bool}, and answers a JSON line
for each recipe as soon as it has run (its metrics and series), and before them one with the fingerprint by which that
code knows itself. It imports nothing of effbook before it knows the layout: the engine lived in `experiments` once.
"""

import importlib
import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effbook.runs.context import Context

PROFILE = "mini"  # any will do: the folders for records are empty


def main() -> None:
    """Answer the request."""
    request = json.load(sys.stdin)
    # an editable install would lend the modules that this code lacks from the checkout that it was made in
    sys.meta_path = [finder for finder in sys.meta_path if "Editable" not in getattr(finder, "__name__", "")]
    engine = "effbook.runs" if importlib.util.find_spec("effbook.runs") else "effbook.experiments"
    importlib.import_module(f"effbook.experiments.{request['chapter']}")
    importlib.import_module("effbook.experiments").load()  # a recipe may depend on one of another chapter
    recipe_module = importlib.import_module(f"{engine}.recipe")
    surroundings = _surroundings(engine)
    code = importlib.import_module(f"{engine}.{'code' if engine == 'effbook.runs' else 'fingerprint'}")
    recipes = [recipe_module.make(request["name"], **fields) for fields in request["fields"]]
    modules = recipes[0].modules()
    own = code.fingerprint(modules)
    _answer({"fingerprint": own, "modules": modules})
    for recipe in recipes if request["run"] else ():
        with tempfile.TemporaryDirectory() as folder:
            try:
                result = recipe.run(surroundings(Path(folder)))
                _answer({"metrics": result.metrics, "series": result.series})
            except Exception as error:
                _answer({"error": f"{type(error).__name__}: {error}"})


def _surroundings(engine: str) -> "Callable[[Path], Context]":
    """What makes a context; where one run takes another's record, that run is done anew in the folders given."""
    execute, display = (importlib.import_module(f"{engine}.{name}") for name in ("execute", "progress"))
    if hasattr(execute, "surroundings"):
        return lambda folder: execute.surroundings(PROFILE, folder, display.Display(quiet=True))
    return lambda folder: execute.Context(profile=PROFILE, folder=folder)


def _answer(content: dict) -> None:
    _stdout.write(json.dumps(content) + "\n")
    _stdout.flush()


if __name__ == "__main__":
    _stdout, sys.stdout = sys.stdout, sys.stderr  # what a run prints is no answer
    main()
