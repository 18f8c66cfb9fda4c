import itertools

import pytest

from effbook.errors import EffbookError
from effbook.evaluate import latency
from effbook.evaluate.latency import latencies_ms, latency_ms


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when a function says so."""
    now = [0.0]
    monkeypatch.setattr(latency, "perf_counter", lambda: now[0])
    return now


def _takes(clock, times_s):
    times_s = iter(times_s)

    def function():
        clock[0] += next(times_s)

    return function


def test_the_median_and_the_quartiles_leave_the_warm_up_out(clock):
    found = latency_ms(_takes(clock, [9.0, 9.0, 0.005, 0.001, 0.002, 0.004, 0.003]), repeats=5, warmup=2)
    assert found.median_ms == pytest.approx(3.0)
    assert found.quartiles_ms == pytest.approx((2.0, 4.0))
    assert found.repeats == 5


def test_conditions_are_measured_in_turns_and_none_always_comes_first():
    called = []
    latencies_ms({name: lambda name=name: called.append(name) for name in "abc"}, repeats=2, warmup=1)
    assert "".join(called) == "abc" + "bca" + "cab"


def test_a_machine_that_slows_down_slows_all_conditions_alike(clock):
    slower = itertools.count(1)  # each call of either takes longer than the one before

    def one():
        clock[0] += 0.001 * next(slower)

    def three():
        clock[0] += 0.003 * next(slower)

    found = latencies_ms({"one": one, "three": three}, repeats=40, warmup=0)
    assert found["three"].median_ms / found["one"].median_ms == pytest.approx(3.0, rel=0.03)


@pytest.mark.parametrize(("functions", "repeats", "warmup"), [({}, 1, 0), ({"a": int}, 0, 0), ({"a": int}, 1, -1)])
def test_nothing_to_measure_is_refused(functions, repeats, warmup):
    with pytest.raises(EffbookError, match="measure nothing; give at least one function"):
        latencies_ms(functions, repeats=repeats, warmup=warmup)
