"""Fetching, caching and manifests make no number: their code has no part in the fingerprint of a run."""

import ast
from pathlib import Path

import effbook
from effbook.runs.code import here

ROOT = Path(effbook.__file__).parent
LEFT_OUT = {f"effbook.data.{name}" for name in ("cache", "fetch", "manifest", "sources")}
# What a module that makes numbers may have of them: where data lies, whether it is there, what a manifest says of it.
PLACES = {"Manifest", "cache_folder", "digest", "fetch", "is_cached", "is_generated", "manifest", "manifests"}
PLACES |= {"remedy", "verify"}
MAKERS = ("backbones", "compgs", "data", "evaluate", "experiments", "gaussians", "nola")


def test_what_makes_numbers_has_only_places_of_what_is_left_out():
    for path in (path for room in MAKERS for path in (ROOT / room).rglob("*.py")):
        name = ".".join(("effbook", *path.relative_to(ROOT).with_suffix("").parts))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if name not in LEFT_OUT else ():
            if isinstance(node, ast.ImportFrom) and node.module in LEFT_OUT:
                assert {alias.name for alias in node.names} <= PLACES, name
            assert not isinstance(node, ast.Import) or not {alias.name for alias in node.names} & LEFT_OUT, name


def test_what_reads_data_into_arrays_and_texts_counts():
    counted = set(here().closure(("effbook.data",)))
    assert {f"effbook.data.{name}" for name in ("folders", "generated", "images", "text")} <= counted
    assert not LEFT_OUT & counted
