"""Profiles: at what scale a recipe of the dissertation runs, and with which seeds."""

import dataclasses
from collections.abc import Callable

from effbook.errors import EffbookError
from effbook.runs.recipe import Recipe, nearest, recipe_class

PROFILES = ("smoke", "mini", "lab", "paper")

Scaler = Callable[[Recipe, str], Recipe | None]

_SEEDS = {"smoke": (0,), "mini": (0, 1, 2), "lab": (0, 1, 2), "paper": (0, 1, 2)}
_scalers: dict[str, Scaler] = {}
_seeds: dict[str, dict[str, tuple[int, ...]]] = {}


class NotInProfileError(EffbookError):
    """The recipe has no run under the profile."""


def check_profile(profile: str) -> str:
    """The profile's name, if it is one; EffbookError otherwise."""
    if profile not in PROFILES:
        raise EffbookError(f"there is no profile {profile!r}", nearest(str(profile), list(PROFILES)))
    return profile


def register_profiles(name: str, scaler: Scaler, *, seeds: dict[str, tuple[int, ...]] | None = None) -> None:
    """Say how the recipe called `name` is scaled: scaler(recipe, profile) -> the recipe that runs, or None for no run.

    `seeds` gives, for the profiles it names, the seeds to run; the others keep smoke (0,) and (0, 1, 2).
    """
    for profile in seeds or {}:
        check_profile(profile)
    _scalers[name] = scaler
    _seeds[name] = dict(seeds or {})


def scale(recipe: Recipe, profile: str) -> Recipe:
    """The recipe that runs under `profile` for a recipe of the dissertation; NotInProfileError if none does.

    A recipe without a scaler runs under `paper` only: small numbers must not pose as another scale's by accident.
    """
    check_profile(profile)
    scaler = _scalers.get(recipe.name)
    scaled = scaler(recipe, profile) if scaler else (recipe if profile == "paper" else None)
    if scaled is None:
        raise NotInProfileError(f"{recipe.name} has no {profile} run for these fields", "choose another profile")
    return scaled


def seeds(recipe: Recipe, profile: str) -> tuple[int, ...]:
    """The seeds over which the recipe runs under `profile`."""
    check_profile(profile)
    recipe_class(recipe.name)
    return tuple(_seeds.get(recipe.name, {}).get(profile, _SEEDS[profile]))


def with_seeds(recipe: Recipe, wanted: tuple[int, ...]) -> list[Recipe]:
    """The same recipe once for each seed."""
    return [dataclasses.replace(recipe, seed=seed) for seed in wanted]
