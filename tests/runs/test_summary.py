"""Means and intervals over seeds."""

import math

import pytest
from scipy.special import stdtr, stdtrit

from effbook.errors import EffbookError
from effbook.runs.summary import QUANTILES, summarise


def test_the_interval_is_students_at_95_percent():
    mean, half_width, n = summarise([1.0, 2.0, 3.0])
    assert (mean, n) == (2.0, 3)
    assert half_width == pytest.approx(4.302652729911275 / math.sqrt(3))  # t(0.975, 2) from a printed table
    assert tuple(summarise([4.0])) == (4.0, None, 1)
    with pytest.raises(EffbookError):
        summarise([])


def test_the_quantiles_are_scipys():
    for freedom, quantile in enumerate(QUANTILES, 1):
        assert stdtr(freedom, quantile) == pytest.approx(0.975, rel=1e-12)
        assert quantile == pytest.approx(stdtrit(freedom, 0.975), rel=1e-9)
    many = summarise([float(i % 2) for i in range(len(QUANTILES) + 2)])
    assert many.half_width < summarise([float(i % 2) for i in range(len(QUANTILES) + 1)]).half_width
