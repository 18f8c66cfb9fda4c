"""Several runs: one that fails, or is killed, stops no other."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tiny_recipe import Tiny

from effbook.errors import EffbookError
from effbook.runs import one, records
from effbook.runs.batch import RunsFailedError, execute_all
from effbook.runs.memory import PeakMemory


def test_several_runs_go_on_past_one_that_fails(folders, monkeypatch, capsys):
    bad = Tiny(seed=1, steps=3)
    real = Tiny.run
    monkeypatch.setattr(Tiny, "run", lambda self, context: 1 / 0 if self == bad else real(self, context))
    pairs = [(Tiny(seed=seed, steps=3), "smoke") for seed in range(3)]
    with pytest.raises(RunsFailedError, match=f"1 of 3 runs failed, the first \\(tiny {bad.key}\\)") as caught:
        execute_all(pairs, quiet=True)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert [records.find(*pair) is not None for pair in pairs] == [True, False, True]
    assert "[3/3]" in capsys.readouterr().err
    monkeypatch.setattr(Tiny, "run", real)
    found = execute_all(pairs)
    assert [record.recipe.fields["seed"] for record in found] == [0, 1, 2]
    assert "2 of 3 runs are recorded" in capsys.readouterr().err


def test_the_time_left_is_no_age_where_the_first_runs_cost_nothing(folders, monkeypatch, capsys):
    from effbook.runs import batch

    pairs = [(Tiny(seed=seed, steps=3), "smoke") for seed in range(3)]
    estimates = dict(zip(pairs, (0.0, 0.0, 40.0), strict=True))
    monkeypatch.setattr(batch, "seconds_of", lambda _: estimates)
    execute_all(pairs, quiet=True)
    told = capsys.readouterr().err
    assert "[1/3]" in told
    assert " h left" not in told


@pytest.mark.slow
def test_jobs_run_in_processes_of_their_own_and_give_the_same_records(folders, tmp_path, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setenv("TINY_LOG", str(log))
    monkeypatch.setenv("TINY_SLEEP_S", "0.3")
    pairs = [(Tiny(seed=seed, steps=3), "smoke") for seed in range(2)]
    apart = execute_all([*pairs, *pairs], jobs=2)
    assert len(apart) == 4
    processes = log.read_text().split()[1::2]
    assert len(set(processes) | {str(os.getpid())}) == 3
    again = execute_all(pairs, fresh=True, quiet=True)
    assert [record.metrics for record in again] == [record.metrics for record in apart[:2]]


@pytest.mark.slow
def test_a_run_that_the_system_kills_is_named_and_the_others_go_on(folders, monkeypatch, capsys):
    monkeypatch.setenv("TINY_KILLED_SEED", "1")
    pairs = [(Tiny(seed=seed, steps=3), "smoke") for seed in range(4)]
    with pytest.raises(RunsFailedError, match="1 of 4 runs failed") as caught:
        execute_all(pairs, jobs=2, quiet=True)
    assert f"tiny {Tiny(seed=1, steps=3).key}" in str(caught.value)
    assert "killed by SIGKILL" in str(caught.value)
    assert "fewer jobs" in str(caught.value)
    assert isinstance(caught.value.__cause__, EffbookError)
    assert [records.find(*pair) is not None for pair in pairs] == [True, False, True, True]
    assert "seed 1 (smoke): failed: its process was killed by SIGKILL" in capsys.readouterr().err
    monkeypatch.delenv("TINY_KILLED_SEED")
    assert len(execute_all(pairs, jobs=2, quiet=True)) == 4


def test_a_failure_in_a_process_travels_as_its_sentence(folders, monkeypatch):
    order = {
        "modules": ["tiny_recipe"],
        "name": "tiny",
        "fields": {"steps": 3},
        "profile": "smoke",
        "fresh_since": None,
    }
    monkeypatch.setenv("TINY_NAN_AT", "2")
    told = one.answer(order)
    assert told["cause"] == "the loss became nan at step 2"
    assert told["remedy"].startswith("lower the learning rate")
    monkeypatch.delenv("TINY_NAN_AT")
    monkeypatch.setenv("TINY_FAIL", "1")
    assert one.answer(order) == {"error": "RuntimeError: the tiny run was told to fail"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT])
def test_no_run_goes_on_when_who_asked_for_it_is_gone(folders, kind):
    code = (
        "import signal\n"
        "from tiny_recipe import Tiny\n"
        "from effbook.runs.batch import execute_all\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        "execute_all([(Tiny(seed=seed, steps=3), 'smoke') for seed in range(2)], jobs=2, quiet=True)\n"
    )
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parents[1])])
    environment = {**os.environ, "PYTHONPATH": path, "TINY_SLEEP_S": "30"}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL)
    while len(list(folders[1].glob("*/checkpoint.pt"))) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    runs = psutil.Process(process.pid).children()
    assert len(runs) == 2
    process.send_signal(kind)  # to it alone, as a terminal would not do
    assert process.wait(timeout=20) != 0
    assert psutil.wait_procs(runs, timeout=20)[1] == []


def test_the_peaks_of_a_run_and_of_one_within_it_are_told_apart(monkeypatch):
    class Cuda:
        peak = 0

        def reset_peak_memory_stats(self):
            self.peak = 0

        def max_memory_allocated(self):
            return self.peak

    cuda = Cuda()
    monkeypatch.setattr("effbook.runs.memory._cuda", lambda: cuda)
    with PeakMemory() as outer:
        cuda.peak = 70
        with PeakMemory() as inner:
            cuda.peak = 30
        cuda.peak = 40
    assert (outer.gpu_bytes, inner.gpu_bytes) == (70, 30)
