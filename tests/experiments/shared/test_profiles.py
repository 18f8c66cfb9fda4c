"""Tables of profiles, and the recipes that need none because they are pure arithmetic."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
from pydantic import PositiveInt

from effbook.errors import EffbookError
from effbook.experiments.shared.arithmetic import register_arithmetic
from effbook.experiments.shared.profiles import SKIP, scaled_by
from effbook.runs.profiles import NotInProfileError, scale, seeds
from effbook.runs.recipe import Recipe


@register_arithmetic
@dataclass(frozen=True, kw_only=True)
class Area(Recipe):
    system: ClassVar[str] = "nola"
    name: ClassVar[str] = "test-area"

    width: PositiveInt = 100
    height: PositiveInt = 40


TABLE = {
    "smoke": {"width": 4, "height": lambda r: r.height // 10},
    "mini": {"width": lambda r: SKIP if r.width > 200 else r.width // 2},
}


def test_a_table_replaces_values_and_calls_functions_with_the_papers_recipe():
    assert scaled_by(TABLE)(Area(), "smoke") == Area(width=4, height=4)
    assert scaled_by(TABLE)(Area(), "mini") == Area(width=50)


def test_a_profile_that_the_table_lacks_changes_nothing():
    assert scaled_by(TABLE)(Area(), "paper") == Area()


def test_skip_says_that_there_is_no_run():
    assert scaled_by(TABLE)(Area(width=300), "mini") is None


def test_arithmetic_runs_under_paper_alone_and_once():
    assert scale(Area(), "paper") == Area()
    assert seeds(Area(), "paper") == (0,)
    for profile in ("smoke", "mini", "lab"):
        with pytest.raises(NotInProfileError):
            scale(Area(), profile)


def test_a_value_outside_the_range_of_its_annotation_is_refused():
    with pytest.raises(EffbookError, match="width is 0; choose width above 0"):
        Area(width=0)
