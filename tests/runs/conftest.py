"""Records and work folders of their own for every test of the experiments."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
if str(_HERE) not in sys.path:  # so that worker processes find the tiny recipe, too
    sys.path.insert(0, str(_HERE))


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """(records, work), empty."""
    monkeypatch.setenv("EFFBOOK_RECORDS", str(tmp_path / "records"))
    monkeypatch.setenv("EFFBOOK_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in [name for name in os.environ if name.startswith(("TINY_", "PLAIN_"))]:
        monkeypatch.delenv(name)
    return tmp_path / "records", tmp_path / "work"


@pytest.fixture
def start(folders):
    """Start the tiny recipe (STEPS [--fresh]) in a process of its own, with more environment."""
    started = []

    def _start(*arguments, **environment):
        command = [sys.executable, "-c", "import tiny_recipe; tiny_recipe.main()", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(_HERE), **environment}
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield _start
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()
