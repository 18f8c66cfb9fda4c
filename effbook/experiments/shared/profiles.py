"""Profiles as tables: what each one changes in the dissertation's recipe, field by field."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from effbook.runs.profiles import Scaler
from effbook.runs.recipe import Recipe

SKIP = object()  # in a value's place: the recipe has no run under that profile

# profile -> field -> value, or a function of the dissertation's recipe that gives it
Table = Mapping[str, Mapping[str, Any | Callable[[Any], Any]]]


def scaled_by(table: Table) -> Scaler:
    """Return what `register_profiles` asks for: (recipe, profile) -> the recipe that runs, or None for no run.

    A profile that isn't in the table changes nothing, as `paper` should.
    """

    def scale(recipe: Recipe, profile: str) -> Recipe | None:
        changes = table.get(profile, {})
        values = {field: value(recipe) if callable(value) else value for field, value in changes.items()}
        return None if any(value is SKIP for value in values.values()) else replace(recipe, **values)

    return scale
