"""Settings of mean shift."""

import math
import subprocess
import sys

import pytest

from effbook.cmsf.config import MeanShiftSettings
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


def test_settings_need_no_torch():
    code = "import sys; import effbook.cmsf; from effbook.cmsf import TrainSettings; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
