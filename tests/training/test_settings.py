"""How long and how fast a method is trained."""

import math

import pytest

from effbook.errors import EffbookError
from effbook.training.settings import TrainSettings, check_bank


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch": 2.0},
        {"learning_rate": math.inf},
        {"schedule": "steps"},
        {"drops": (3,)},
        {"drop_factor": 2.0},
        {"schedule": "steps", "drops": (0,)},
        {"optimiser": "lamb"},
    ],
)
def test_an_impossible_training_is_refused(wrong):
    with pytest.raises(EffbookError):
        TrainSettings(**wrong)


def test_a_bank_must_be_a_multiple_of_the_batch():
    check_bank(1024, k=5, batch=256)
    with pytest.raises(
        EffbookError, match="a bank of 1000 is no multiple of the batch of 256; choose one such as 1024"
    ):
        check_bank(1000, batch=256)


def test_the_rate_falls_along_a_cosine_epoch_by_epoch():
    settings = TrainSettings(epochs=4, learning_rate=0.1)
    assert [settings.rate(e) for e in range(4)] == pytest.approx([0.1, 0.0853553, 0.05, 0.0146447], rel=1e-5)


def test_the_rate_warms_up_and_drops():
    settings = TrainSettings(epochs=6, learning_rate=1.0, schedule="steps", drops=(3, 5), warmup_epochs=1)
    assert [settings.rate(e) for e in range(6)] == pytest.approx([0.5, 1, 1, 0.1, 0.1, 0.01])
    by_fifths = TrainSettings(epochs=3, learning_rate=1.0, schedule="steps", drops=(1, 2), drop_factor=0.2)
    assert [by_fifths.rate(e) for e in range(3)] == pytest.approx([1, 0.2, 0.04])
