"""Running: resumed after a kill, computed once, recorded whole or not at all."""

import json
import time

import pytest
import torch
from tiny_recipe import Tiny

from effbook.errors import EffbookError
from effbook.runs import code, records
from effbook.runs.execute import execute, work_folder
from effbook.runs.plan import plan


def _wait_for_step(process, recipe, step):
    while _steps_done(recipe) < step:
        assert process.poll() is None, f"it ended before step {step}: {process.stderr.read()}"
        time.sleep(0.02)


def _steps_done(recipe):
    try:
        return torch.load(work_folder(recipe, "smoke") / "checkpoint.pt", weights_only=True)["step"]
    except FileNotFoundError:
        return 0


@pytest.mark.slow
def test_a_killed_run_called_again_finishes_as_if_it_had_never_been_cut(folders, start, tmp_path, monkeypatch, capsys):
    recipe = Tiny(steps=12)
    process = start(12, TINY_SLEEP_S="0.2")
    _wait_for_step(process, recipe, 3)
    process.kill()  # SIGKILL: nothing is tidied up
    process.wait()
    assert records.find(recipe, "smoke") is None
    assert list(folders[0].rglob("*.json")) == []
    assert plan([(recipe, "smoke")]).runs[0].state == "interrupted"
    done_before = _steps_done(recipe)

    resumed = execute(recipe, profile="smoke")
    assert f"resuming at step {done_before}" in capsys.readouterr().err
    assert not work_folder(recipe, "smoke").exists()
    assert resumed.cost.wall_seconds > 0.2 * (done_before - 1)  # the first part counts, too

    monkeypatch.setenv("EFFBOOK_RECORDS", str(tmp_path / "elsewhere"))
    whole = execute(recipe, profile="smoke")
    assert (resumed.metrics, resumed.series) == (whole.metrics, whole.series)
    assert resumed.artifacts == whole.artifacts


@pytest.mark.slow
def test_of_two_processes_on_one_record_one_computes_and_the_other_waits(folders, start, tmp_path):
    log = tmp_path / "log"
    both = [start(5, TINY_SLEEP_S="0.3", TINY_LOG=str(log)) for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert len(log.read_text().splitlines()) == 1
    assert any("another process computes" in error for error in errors)
    assert records.find(Tiny(steps=5), "smoke").metrics["steps"] == 5


@pytest.mark.slow
def test_of_two_fresh_processes_the_second_takes_the_firsts_record(folders, start, tmp_path):
    execute(Tiny(steps=5), profile="smoke", quiet=True)
    log = tmp_path / "log"
    both = [start(5, "--fresh", TINY_SLEEP_S="0.5", TINY_LOG=str(log)) for _ in range(2)]
    for process in both:
        process.communicate()
    assert len(log.read_text().splitlines()) == 1


@pytest.mark.slow
def test_a_waiting_process_takes_over_from_one_that_dies(folders, start, tmp_path):
    recipe, log = Tiny(steps=10), tmp_path / "log"
    first = start(10, TINY_SLEEP_S="0.3", TINY_LOG=str(log))
    _wait_for_step(first, recipe, 2)
    second = start(10, TINY_LOG=str(log))
    assert "another process" in second.stderr.readline()
    first.kill()
    assert "resuming at step" in second.communicate(timeout=60)[1]
    assert second.returncode == 0
    assert records.find(recipe, "smoke").metrics["steps"] == 10


def test_a_record_that_is_there_is_returned_without_a_run(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("TINY_LOG", str(tmp_path / "log"))
    first = execute(Tiny(), profile="smoke")
    assert execute(Tiny(), profile="smoke") == first
    assert len((tmp_path / "log").read_text().splitlines()) == 1
    assert execute(Tiny(), profile="mini").profile == "mini"  # each profile has its own records


def test_a_record_holds_what_the_run_gave_and_where_it_came_from(folders):
    record = execute(Tiny(seed=2), profile="smoke")
    path = folders[0] / "smoke" / "nola" / f"tiny-{Tiny(seed=2).key}.json"
    assert records.read(path) == record
    assert record.metrics == {"loss": record.series["losses"][-1], "steps": 6, "bleu": None}
    assert record.notes == {"bleu": "there is no text"}
    assert record.artifact("picture").read_text() == "seed 2"
    assert record.make_recipe() == Tiny(seed=2)
    assert record.cost.flops == 128.0
    assert record.cost.wall_seconds > 0
    assert record.cost.peak_memory_bytes > 2**20
    assert record.provenance.packages["torch"]
    assert record.provenance.threads >= 1
    assert not work_folder(Tiny(seed=2), "smoke").exists()


def test_a_stale_record_is_shown_with_its_commit_and_never_recomputed(folders, monkeypatch, capsys):
    record = execute(Tiny(), profile="smoke")
    path = records.path_of(Tiny(), "smoke")
    content = json.loads(path.read_text())
    content["provenance"] |= {"fingerprint": "0" * 16, "commit": "abcdef1234567890"}
    path.write_text(json.dumps(content))
    monkeypatch.setenv("TINY_FAIL", "1")  # were it to run
    assert not records.is_stale(record)
    stale = execute(Tiny(), profile="smoke")
    assert records.is_stale(stale)
    assert stale.metrics == record.metrics
    assert "recorded, stale (commit abcdef1234); --fresh recomputes" in capsys.readouterr().err
    assert plan([(Tiny(), "smoke")]).runs[0].state == "stale"


def test_a_record_whose_recipe_is_gone_is_stale(folders):
    record = execute(Tiny(), profile="smoke")
    gone = record.model_copy(update={"recipe": record.recipe.model_copy(update={"name": "tiny-gone"})})
    assert records.is_stale(gone)


def test_a_fresh_run_that_fails_keeps_the_old_record_and_its_artifacts(folders, monkeypatch):
    old = execute(Tiny(), profile="smoke")
    text = records.path_of(Tiny(), "smoke").read_text()
    monkeypatch.setenv("TINY_FAIL", "1")
    with pytest.raises(RuntimeError, match="told to fail"):
        execute(Tiny(), profile="smoke", fresh=True)
    assert records.path_of(Tiny(), "smoke").read_text() == text
    assert old.artifact("picture").read_text() == "seed 0"


def test_a_fresh_run_that_succeeds_replaces_the_record_and_its_artifacts(folders, monkeypatch):
    old = execute(Tiny(), profile="smoke")
    monkeypatch.setenv("TINY_PICTURE", "another")
    new = execute(Tiny(), profile="smoke", fresh=True)
    assert records.find(Tiny(), "smoke") == new != old
    assert new.artifact("picture").read_text() == "another"
    assert len(list((folders[0] / "smoke" / "nola" / f"tiny-{new.key}").iterdir())) == 1


def test_a_failure_while_the_record_is_written_leaves_the_old_one_whole(folders, monkeypatch):
    old = execute(Tiny(), profile="smoke")
    monkeypatch.setenv("TINY_PICTURE", "another")
    with monkeypatch.context() as patch:
        patch.setattr(records, "write_atomically", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            execute(Tiny(), profile="smoke", fresh=True)
    assert records.find(Tiny(), "smoke") == old
    assert old.artifact("picture").read_text() == "seed 0"


def test_a_fresh_run_does_not_go_on_from_a_run_that_was_not(folders, monkeypatch, capsys):
    monkeypatch.setenv("TINY_FAIL", "1")
    resumed = []
    for fresh in (False, True, True, False):
        with pytest.raises(RuntimeError):
            execute(Tiny(), profile="smoke", fresh=fresh)
        resumed.append("resuming at step" in capsys.readouterr().err)
    assert resumed == [False, False, True, True]


def test_a_run_does_not_go_on_from_the_state_of_other_code(folders, monkeypatch, capsys):
    monkeypatch.setenv("TINY_FAIL", "1")
    with pytest.raises(RuntimeError):
        execute(Tiny(), profile="smoke")
    monkeypatch.delenv("TINY_FAIL")
    monkeypatch.setattr(code.Sources, "fingerprint", lambda self, modules, device: "1" * 16)
    execute(Tiny(), profile="smoke")
    errors = capsys.readouterr().err
    assert "made by other code, packages or device" in errors
    assert "resuming" not in errors


def test_a_loss_that_is_not_finite_stops_the_run_and_loses_nothing(folders, monkeypatch):
    old = execute(Tiny(), profile="smoke")
    monkeypatch.setenv("TINY_NAN_AT", "4")
    with pytest.raises(EffbookError, match=r"the loss became nan at step 4.*the checkpoint of step 3"):
        execute(Tiny(), profile="smoke", fresh=True)
    assert records.find(Tiny(), "smoke") == old
    assert _steps_done(Tiny()) == 3


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_metric_that_is_not_finite_is_refused(folders, monkeypatch, value):
    monkeypatch.setenv("TINY_METRIC", value)
    with pytest.raises(EffbookError, match=f"measured loss = {value}"):
        execute(Tiny(), profile="smoke")
    assert records.find(Tiny(), "smoke") is None
    assert work_folder(Tiny(), "smoke").exists()


def test_what_the_machine_lacks_is_told_before_anything_starts(folders, monkeypatch):
    monkeypatch.setenv("TINY_NEEDS", "package:no_such_package,program:no-such-program,memory-gib:1000000")
    with pytest.raises(
        EffbookError, match="needs the package no_such_package and the program no-such-program and 1000"
    ):
        execute(Tiny(), profile="smoke")
    assert not work_folder(Tiny(), "smoke").exists()


def test_a_record_that_cannot_be_read_is_not_overwritten_unless_fresh(folders):
    execute(Tiny(), profile="smoke")
    path = records.path_of(Tiny(), "smoke")
    path.write_text("{half")
    with pytest.raises(EffbookError, match=r"tiny-.*\.json cannot be read.*--fresh"):
        execute(Tiny(), profile="smoke")
    assert path.read_text() == "{half"
    execute(Tiny(), profile="smoke", fresh=True)
    assert records.find(Tiny(), "smoke").metrics["steps"] == 6
