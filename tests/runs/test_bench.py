"""The ledger: ratios measured in turns, kept with where they came from."""

import json
import time

import pytest
from tiny_recipe import Tiny

from effbook.errors import EffbookError
from effbook.runs import bench as ledger
from effbook.runs import records
from effbook.runs.bench import bench, compare, difference, mean_of, ratio, recorded, register_bench, standing_of
from effbook.runs.execute import execute


@pytest.fixture(autouse=True)
def _own_benches(folders, monkeypatch):
    monkeypatch.setattr(ledger, "_benches", {})


def test_both_sides_are_measured_in_turns_and_the_median_taken(monkeypatch):
    clock, calls = [0.0], []
    took_a = iter([9, 9, 2, 4, 6, 100, 2])  # two to warm up, then five; one is an outlier
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def a():
        calls.append("a")
        clock[0] += next(took_a)

    def b():
        calls.append("b")
        clock[0] += 2

    found = compare(a, b, repeats=5)
    assert "".join(calls) == "ab" * 7
    assert (found.value, found.low, found.high) == (2.0, 1.0, 3.0)
    assert (found.a, found.b, found.unit, found.pairs) == (4000.0, 2000.0, "ms", 5)
    assert found.iqr == 2.0
    assert compare(lambda: None, lambda: None, repeats=2, clock=iter(range(99)).__next__).value == 1.0


def test_the_ledger_tells_what_is_reached_and_writes_where_it_came_from(folders):
    register_bench("nola", "bytes", lambda: ratio(100, 50, "bytes"), "<= 2.5", "1.9")
    register_bench("nola", "speed", lambda: ratio(3, 1, "ms"), ">= 4.6")
    register_bench("nola", "plain", lambda: ratio(3, 1, "ms"))
    assert [line.reached for line in bench("nola")] == [True, False, None]
    content = json.loads((folders[0] / "bench" / "nola.json").read_text())
    assert content["system"] == "nola"
    entry = recorded("nola")["bytes"]
    own = {"value": 2.0, "low": 2.0, "high": 2.0, "a": 100.0, "b": 50.0, "unit": "bytes", "pairs": 1, "sign": "/"}
    assert entry["ratio"] == own
    assert entry["reported"] == "1.9"
    assert entry["provenance"]["packages"]["torch"]


def test_a_bench_that_cannot_run_here_is_told_and_keeps_what_was_recorded():
    register_bench("nola", "gpu", lambda: ratio(1, 1, "ms"))
    bench("nola")

    def broken():
        raise EffbookError("the kernel is missing", "install it")

    register_bench("nola", "gpu", lambda: ratio(2, 1, "ms"), needs=("package:no_such_package",))
    register_bench("nola", "kernel", broken)
    lines = bench()
    assert [line.why for line in lines] == ["needs the package no_such_package", "the kernel is missing; install it."]
    assert [line.ratio for line in lines] == [None, None]
    assert recorded("nola")["gpu"]["ratio"]["value"] == 1.0


def test_an_unknown_system_an_empty_ledger_and_a_damaged_one_are_told(folders):
    with pytest.raises(EffbookError, match="did you mean nola"):
        bench("nolla")
    with pytest.raises(EffbookError, match="no bench yet"):
        bench("nola")
    ledger.bench_path("nola").parent.mkdir(parents=True)
    ledger.bench_path("nola").write_text("{")
    with pytest.raises(EffbookError, match=r"nola\.json cannot be read"):
        recorded("nola")


def test_impossible_thresholds_and_repeats_are_refused():
    with pytest.raises(ValueError, match="such as"):
        register_bench("nola", "x", lambda: ratio(1, 1, "ms"), "about 2")
    with pytest.raises(EffbookError, match="no spread"):
        compare(lambda: None, lambda: None, repeats=1)


def test_a_ratio_of_recorded_runs_names_its_records_and_is_as_stale_as_they_are(folders):
    pairs = [Tiny(seed=seed) for seed in range(2)]
    with pytest.raises(EffbookError, match="not every tiny of smoke is recorded"):
        mean_of("steps", pairs, "smoke")
    for one in pairs:
        execute(one, profile="smoke", quiet=True)
    register_bench("nola", "from records", lambda: ratio(mean_of("steps", pairs, "smoke"), 3, "steps"), ">= 2")
    register_bench("nola", "half", lambda: ratio(mean_of("steps", pairs, "smoke").map(lambda x: x / 2), 3, "steps"))
    register_bench("nola", "own", lambda: ratio(1, 1, "ms"))
    steps = mean_of("steps", pairs, "smoke")
    register_bench("nola", "less", lambda: difference(steps, steps.map(lambda x: x - 2), "steps"), ">= 2")
    bench("nola")
    entries = recorded("nola")
    names = [f"smoke/nola/tiny-{one.key}.json" for one in pairs]
    assert entries["from records"]["ratio"]["value"] == 2.0
    assert entries["half"]["ratio"]["value"] == 1.0
    less = entries["less"]
    assert (less["ratio"]["value"], less["ratio"]["sign"], less["reached"], less["records"]) == (2.0, "-", True, names)
    assert entries["from records"]["records"] == names
    assert "provenance" not in entries["from records"]  # the bench's commit did not measure it
    assert "records" not in entries["own"]
    assert [standing_of(paths) for paths in ((), names)] == ["", "measured"]
    path = records.path_of(pairs[1], "smoke")
    content = json.loads(path.read_text())
    content["provenance"]["fingerprint"] = "0" * 16
    path.write_text(json.dumps(content))
    assert standing_of(names) == "stale"
    path.unlink()
    assert standing_of(names) == "stale"


def test_a_difference_is_spread_over_its_seeds_pair_by_pair():
    a = ledger.FromRecords(3.0, ("a",), (1.0, 3.0, 5.0))
    b = ledger.FromRecords(1.0, ("b",), (1.0, 1.0, 1.0))
    found = difference(a, b, "%")
    assert (found.low, found.value, found.high, found.pairs) == (1.0, 2.0, 3.0, 3)
    alone = difference(a, ledger.FromRecords(1.0, ("b",)), "%")
    assert (alone.low, alone.high, alone.pairs) == (2.0, 2.0, 1)
    assert (a - b).map(abs).each == (0.0, 2.0, 4.0)


def test_what_was_measured_before_an_unforeseen_failure_is_kept():
    register_bench("nola", "first", lambda: ratio(1, 1, "ms"))
    register_bench("nola", "second", lambda: ratio(1, 0, "ms"))
    with pytest.raises(ZeroDivisionError):
        bench("nola")
    assert list(recorded("nola")) == ["first"]


def test_a_metric_without_a_value_is_told_with_its_reason(folders):
    pairs = [Tiny(seed=seed) for seed in range(2)]
    for one in pairs:
        execute(one, profile="smoke", quiet=True)
    path = records.path_of(pairs[1], "smoke")
    content = json.loads(path.read_text())
    content["metrics"]["steps"], content["notes"] = None, {"steps": "it took none"}
    path.write_text(json.dumps(content))
    with pytest.raises(EffbookError, match=rf"steps has no value in smoke/nola/{path.name} \(it took none\)"):
        mean_of("steps", pairs, "smoke")
