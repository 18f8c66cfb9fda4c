"""The house has one way up (pyproject.toml, [tool.importlinter])."""

import os
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_LINT = "import sys; sys.path.insert(0, sys.argv.pop(1)); from importlinter.cli import lint_imports_command as c; c()"


def _lint(folder, config):
    command = [sys.executable, "-c", _LINT, str(folder), "--no-cache", "--no-logo", "--config", str(config)]
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_no_import_points_to_a_higher_floor_and_there_is_no_circle():
    found = _lint(_ROOT, _ROOT / "pyproject.toml")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "10 kept, 0 broken" in found.stdout


def test_an_import_upwards_would_be_caught(tmp_path):
    house = tmp_path / "effbook"
    for room in (
        "book",
        "exhibits",
        "experiments",
        *(f"experiments/{chapter}" for chapter in ("introduction", "cmsf", "simreg", "compgs", "nola", "shared")),
        "runs",
        "slowformer",
        "cmsf",
        "simreg",
        "nola",
        "adaptive",
        "compgs",
        "gaussians",
        "training",
        "backbones",
        "evaluate",
        "data",
        "cli",
    ):
        (house / room).mkdir(parents=True)
        (house / room / "__init__.py").write_text("")
    for room in ("__init__", "errors", "files", "places", "chapters"):
        (house / f"{room}.py").write_text("")
    (tmp_path / "pyproject.toml").write_bytes((_ROOT / "pyproject.toml").read_bytes())
    assert _lint(tmp_path, tmp_path / "pyproject.toml").returncode == 0

    (house / "nola" / "__init__.py").write_text("def f():\n    from effbook.experiments import x\n")
    found = _lint(tmp_path, tmp_path / "pyproject.toml")
    assert found.returncode == 1
    assert "effbook.nola is not allowed to import effbook.experiments" in found.stdout

    (house / "nola" / "__init__.py").write_text("from effbook import data\n")
    assert "NOLA is a library of its own" in _lint(tmp_path, tmp_path / "pyproject.toml").stdout

    (house / "nola" / "__init__.py").write_text("")
    (house / "gaussians" / "__init__.py").write_text("from effbook import data\n")
    assert "CompGS and its Gaussians are a library" in _lint(tmp_path, tmp_path / "pyproject.toml").stdout

    (house / "gaussians" / "__init__.py").write_text("")
    (house / "experiments" / "compgs" / "__init__.py").write_text("from effbook.experiments.nola import x\n")
    assert "A chapter's experiments need no other chapter's" in _lint(tmp_path, tmp_path / "pyproject.toml").stdout

    (house / "experiments" / "compgs" / "__init__.py").write_text("")
    (house / "runs" / "__init__.py").write_text("from effbook import nola\n")
    assert "The engine knows no system" in _lint(tmp_path, tmp_path / "pyproject.toml").stdout

    (house / "runs" / "__init__.py").write_text("")
    (house / "attic.py").write_text("")  # a room without a floor
    assert _lint(tmp_path, tmp_path / "pyproject.toml").returncode == 1
