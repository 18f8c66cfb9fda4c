"""Recipes that are pure arithmetic: nothing is trained, nothing is random, and the dissertation's scale is the only."""

from effbook.runs.profiles import register_profiles
from effbook.runs.recipe import Recipe, register_recipe


def register_arithmetic(cls: type[Recipe]) -> type[Recipe]:
    """Class decorator in place of `register_recipe`: the recipe runs as it is, under `paper` alone, with seed 0."""
    register_profiles(cls.name, lambda recipe, profile: recipe if profile == "paper" else None, seeds={"paper": (0,)})
    return register_recipe(cls)
