"""Planning, running and measuring: what is asked is done, shown, and its failure told by the exit status."""

import importlib
import sys

from effbook import data, experiments
from effbook.errors import EffbookError
from effbook.runs import bench as ledger
from effbook.runs import records


def test_run_records_and_shows_the_table(door, effbook):
    status, out, err = effbook("run", "tab-0.1", "--profile", "mini")
    assert (status, out) == (0, "table tab-0.1 mini\n")
    assert "[2/2] door" in err
    assert [record.metrics["seed"] for record in records.all_records("mini")] in ([0, 1], [1, 0])
    assert "2 of 2 runs are recorded" in effbook("run", "tab-0.1")[2]
    assert "[2/2] door" in effbook("run", "tab-0.1", "--fresh", "--quiet")[2]


def test_run_of_a_system_shows_the_tables_that_its_runs_are_in(door, effbook):
    assert effbook("run", "nola", "--profile", "smoke")[1] == "table tab-0.1 smoke\n"


def test_records_of_other_code_are_shown_and_end_in_one_sentence(door, effbook, monkeypatch):
    effbook("run", "tab-0.1")
    monkeypatch.setattr(records, "standing", lambda *_: "stale")
    status, out, err = effbook("run", "tab-0.1")
    assert status == 1
    assert out == "table tab-0.1 mini\n"
    assert "2 of the records were made by other code; recompute them with --fresh" in err


def test_runs_that_the_machine_cannot_do_are_left_out_before_anything_starts(door, effbook, monkeypatch):
    monkeypatch.setattr(door, "needs", lambda self: ("program:no-such-program",) if self.seed else ())
    status, _, err = effbook("run", "tab-0.1")
    assert status == 1
    assert "1 of 2 runs were left out, as they need" in err
    assert "no-such-program" in err
    assert [record.metrics["seed"] for record in records.all_records("mini")] == [0]


def test_data_that_cannot_be_had_is_told_once_before_any_run_starts(door, effbook, monkeypatch):
    def fetch(name, **_):
        raise EffbookError(f"{name} could not be fetched (no network)", "bring it")

    monkeypatch.setattr(data, "fetch", fetch)
    monkeypatch.setattr(door, "datasets", lambda self: ("mnist",) if self.seed else ())
    status, _, err = effbook("run", "tab-0.1")
    assert status == 1
    assert err.count("could not be fetched") == 1
    assert "1 of 2 runs were left out: mnist could not be fetched (no network); bring it." in err
    assert [record.metrics["seed"] for record in records.all_records("mini")] == [0]


def test_seeds_says_how_many(door, effbook):
    assert effbook("run", "tab-0.1", "--seeds", "3")[0] == 0
    assert sorted(record.metrics["seed"] for record in records.all_records("mini")) == [0, 1, 2]


def test_the_shards_of_a_request_are_all_of_it_and_show_no_table(door, effbook):
    for i in (1, 2):
        status, out, err = effbook("run", "tab-0.1", "--shard", f"{i}/2")
        assert (status, out) == (0, "")
        assert f"shard {i}/2: 1 of 2 runs" in err
        assert len(records.all_records("mini")) == i
    assert "shard 3/3: 0 of 2 runs" in effbook("run", "tab-0.1", "--shard", "3/3")[2]
    assert effbook("run", "tab-0.1", "--shard", "3/2")[::2] == (
        1,
        "effbook: --shard 3/2 is no shard; give one such as 2/8: from 1/8 to 8/8.\n",
    )


def test_slurm_prints_a_script_that_calls_this_very_request(door, effbook):
    status, out, _ = effbook("slurm", "tab-0.1", "--profile", "smoke", "--seeds", "2", "--shards", "2")
    assert status == 0
    assert out.startswith("#!/bin/sh\n# 2 runs in 2 shards")
    assert 'effbook run tab-0.1 --profile smoke --seeds 2 --quiet --shard "$SLURM_ARRAY_TASK_ID/2" &' in out


def test_records_of_another_machine_are_added_and_bad_ones_named(door, effbook, tmp_path, monkeypatch):
    effbook("run", "tab-0.1")
    monkeypatch.setenv("EFFBOOK_RECORDS", str(tmp_path / "here"))
    folder = str(tmp_path / "records")
    assert effbook("records", "add", folder)[:2] == (0, "2 records added, 0 were here, 0 refused.\n")
    assert effbook("records", "add", folder)[:2] == (0, "0 records added, 2 were here, 0 refused.\n")
    assert len(records.all_records("mini")) == 2
    path = records.path_of(door(seed=1), "mini")
    other = tmp_path / "records" / path.relative_to(tmp_path / "here")
    other.write_text("{half")
    status, out, err = effbook("records", "add", folder)
    assert (status, out) == (1, "0 records added, 1 were here, 1 refused.\n")
    assert f"{other.name} cannot be read" in err


def test_a_launcher_that_is_not_installed_is_named_with_its_tier(door, effbook, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    status, _, err = effbook("run", "tab-0.1", "--on", "ray")
    assert status == 1
    assert "the package ray is not installed; pip install" in err


def test_plan_runs_nothing_and_sums(door, effbook):
    status, out, _ = effbook("plan", "tab-0.1")
    assert status == 0
    assert "2 runs, 0 recorded (0 stale), 2 to do" in out
    assert records.all_records("mini") == []


def test_plan_groups_runs_by_exhibit_and_row_or_lists_each(door, effbook, monkeypatch):
    register = importlib.import_module("effbook.exhibits.register")
    monkeypatch.setattr(register, "places_of", lambda _: {door(seed=seed): ("tab-0.1", "oak") for seed in range(2)})
    key = door(seed=0).key
    grouped, single = (effbook("plan", "tab-0.1", *more)[1] for more in ((), ("--each",)))
    assert "tab-0.1" in grouped
    assert "oak: door" in grouped
    assert grouped.count("2 to do") == 3  # of the exhibit, of its row, of all
    assert "0-1" in grouped
    assert key not in grouped
    assert key in single


def test_a_run_that_fails_is_one_sentence_with_its_traceback_only_under_debug(door, effbook, monkeypatch):
    monkeypatch.setattr(door, "act", ZeroDivisionError("divided"))
    status, out, err = effbook("run", "tab-0.1")
    assert (status, out) == (1, "")
    assert "2 of 2 runs failed" in err
    assert "Traceback" not in err
    status, _, err = effbook("run", "tab-0.1", "--debug")
    assert status == 1
    assert "Traceback" in err
    assert "ZeroDivisionError: divided" in err


def test_an_interrupt_says_that_the_run_goes_on(door, effbook, monkeypatch):
    monkeypatch.setattr(door, "act", KeyboardInterrupt())
    status, _, err = effbook("run", "tab-0.1")
    assert status == 130
    assert "interrupted; the same command again goes on with what was not finished" in err


def test_bench_prints_ratios_and_check_fails_on_a_missed_figure(door, effbook, monkeypatch):
    monkeypatch.setattr(ledger, "_benches", {})
    monkeypatch.setattr(experiments, "load", lambda: None)
    ledger.register_bench("nola", "bytes", lambda: ledger.ratio(3, 1, "bytes"), "<= 2")
    status, out, _ = effbook("bench", "nola")
    assert status == 0
    assert "3.000" in out
    assert "missed" in out
    status, _, err = effbook("bench", "nola", "--check")
    assert status == 1
    assert "1 figures are missed: bytes" in err
