"""The dissertation's experiments: for each chapter its recipes, and how each profile scales them."""

import importlib
import importlib.util

from effbook.chapters import CHAPTERS


def load() -> None:
    """Import the chapters that are built, so that their recipes, profiles and benches register with the engine."""
    for chapter in CHAPTERS:
        if importlib.util.find_spec(f"effbook.experiments.{chapter}") is not None:
            importlib.import_module(f"effbook.experiments.{chapter}")
