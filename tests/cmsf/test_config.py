"""Settings of mean shift and of its training."""

import math
import subprocess
import sys

import pytest

from effbook.cmsf.config import MeanShiftSettings, TrainSettings, check_bank
from effbook.errors import EffbookError


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"k": 0}, "k is 0"),
        ({"k": 9, "bank_size": 8}, "bank of 8 is smaller than k = 9"),
        ({"momentum": 1.5}, "momentum is 1.5"),
        ({"momentum": math.nan}, "momentum is nan"),
        ({"unconstrained_half": 1}, "unconstrained_half is 1"),
        ({"precision": "half"}, "precision is 'half'"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_impossible_settings_are_named(wrong, named):
    with pytest.raises(EffbookError, match=named):
        MeanShiftSettings(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch": 2.0},
        {"learning_rate": math.inf},
        {"schedule": "steps"},
        {"drops": (3,)},
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


def test_settings_need_no_torch():
    code = "import sys; import effbook.cmsf; from effbook.cmsf import TrainSettings; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
