"""The drawing of items against what the text asks, and asking for more than there is."""

import numpy as np
import pytest

from effbook.errors import EffbookError
from effbook.experiments.shared.draws import few_shot, subset


def test_each_class_has_its_shots_and_validation_has_none_of_them():
    labels = np.repeat(np.arange(7), 30)
    picked, held_out = few_shot(labels, shots=5, validation=50, seed=1)
    assert np.bincount(labels[picked]).tolist() == [5] * 7
    assert len(held_out) == 50
    assert not set(picked) & set(held_out)


def test_another_sample_set_has_other_images_and_the_same_one_the_same():
    labels = np.repeat(np.arange(7), 30)
    first, again, other = (few_shot(labels, shots=5, validation=0, seed=seed)[0] for seed in (0, 0, 1))
    assert (first == again).all()
    assert set(first) != set(other)


def test_the_test_images_are_the_same_for_all_runs():
    assert (subset(1000, 10) == subset(1000, 10)).all()
    assert len(subset(1000, None)) == 1000


def test_more_than_there_is_cannot_be_drawn():
    labels = np.array([0] * 30 + [1] * 4)
    assert len(few_shot(labels, shots=4, validation=26, seed=0)[1]) == 26
    with pytest.raises(EffbookError, match="5 shots cannot be drawn of class 1, which has 4 items"):
        few_shot(labels, shots=5, validation=0, seed=0)
    with pytest.raises(EffbookError, match="27 items to validate with are asked for where 26 are there"):
        few_shot(labels, shots=4, validation=27, seed=0)
    with pytest.raises(EffbookError, match="choose 10 or fewer"):
        subset(10, 11)
