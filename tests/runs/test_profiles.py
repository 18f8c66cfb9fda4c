"""Profiles: what runs at which scale, over which seeds."""

import dataclasses

import pytest
from tiny_recipe import Tiny

from effbook.errors import EffbookError
from effbook.runs import profiles


@pytest.fixture
def scaled(monkeypatch):
    monkeypatch.setattr(profiles, "_scalers", {})
    monkeypatch.setattr(profiles, "_seeds", {})

    def scaler(recipe, profile):
        if profile == "lab":
            return None
        return recipe if profile == "paper" else dataclasses.replace(recipe, steps=1)

    profiles.register_profiles("tiny", scaler, seeds={"paper": (5,)})


@pytest.mark.usefixtures("scaled")
def test_a_profile_is_a_function_of_the_recipe():
    assert profiles.scale(Tiny(), "mini") == Tiny(steps=1)
    assert profiles.scale(Tiny(), "paper") == Tiny()
    with pytest.raises(profiles.NotInProfileError, match="no lab run"):
        profiles.scale(Tiny(), "lab")


@pytest.mark.usefixtures("scaled")
def test_seeds_are_the_profiles_unless_the_recipe_registers_its_own():
    assert profiles.seeds(Tiny(), "smoke") == (0,)
    assert profiles.seeds(Tiny(), "mini") == (0, 1, 2)
    assert profiles.seeds(Tiny(), "paper") == (5,)
    assert [recipe.seed for recipe in profiles.with_seeds(Tiny(), (3, 4))] == [3, 4]


def test_without_a_scaler_a_recipe_runs_under_paper_only(monkeypatch):
    monkeypatch.setattr(profiles, "_scalers", {})
    assert profiles.scale(Tiny(), "paper") == Tiny()
    with pytest.raises(profiles.NotInProfileError):
        profiles.scale(Tiny(), "mini")


def test_an_unknown_profile_is_told_with_near_names():
    with pytest.raises(EffbookError, match="did you mean mini"):
        profiles.check_profile("mimi")
