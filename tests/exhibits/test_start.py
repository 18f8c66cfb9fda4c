"""The commands that show the register start quickly: nothing that only runs need is imported."""

import subprocess
import sys

import pytest

from effbook.exhibits import bench
from effbook.runs.bench import benches

HEAVY = ("torch", "numba", "scipy", "matplotlib", "seaborn", "transformers", "mitsuba", "sklearn", "IPython")
CALL = """
import sys
from effbook.cli import main
try:
    main(sys.argv[1:])
finally:
    print(*(name for name in {heavy!r} if name in sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize("command", bench.COMMANDS, ids=lambda command: command[0])
def test_showing_imports_nothing_that_only_runs_need(command):
    done = subprocess.run(
        [sys.executable, "-c", CALL.format(heavy=HEAVY), *command], capture_output=True, text=True, check=True
    )
    assert done.stdout
    assert done.stderr.split() == []


def test_the_ledger_has_a_line_for_each_command(monkeypatch):
    monkeypatch.setattr(bench, "COMMANDS", (("reported", "tab-3.12", "--csv"),))
    monkeypatch.setattr(bench, "REPEATS", 2)
    bench.register_benches()
    found = next(one for one in benches("exhibits") if one.name == "effbook reported tab-3.12 --csv").function()
    assert (found.unit, found.b, found.pairs) == ("s", bench.LIMIT_S, 2)
    assert 0 < found.low <= found.value <= found.high
