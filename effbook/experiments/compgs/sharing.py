"""What rows share: trained scenes, and the iterations before rows part. Nothing here needs torch.

They lie in the engine's cache under what acts on them. A scene that is stored or counted in another way is the same
scene; one with other codes is the same until the first code is drawn. A recipe is a SceneRecipe throughout.
"""

import json

from effbook.experiments.compgs.datasets import DATASETS, scene_names
from effbook.runs.recipe import Recipe, Shared

SCENE, STATE = "trained-scene", "state-of-training"  # kinds of results in the cache

Address = tuple[str, dict[str, object], Recipe]  # kind, parts, and the recipe whose code makes it


def address(recipe: Recipe, scene: str) -> Address:
    """Where a trained scene is."""
    return SCENE, _parts(recipe, scene) | {"codes of": recipe.codes_of(scene)}, recipe.plain()


def state_addresses(recipe: Recipe, scene: str) -> dict[int, Address]:
    """Where the states of a scene's training are, by the iterations done: before the penalty, before the first codes.

    Only of small scenes: a state is three times as large as an uncompressed scene.
    """
    if not recipe.on_cpu:
        return {}
    points = sorted({recipe.penalty_start, recipe.kmeans_start - 1})
    last = min(recipe.kmeans_start, recipe.iterations)
    return {point: (STATE, _parts(recipe, scene, point), recipe.plain()) for point in points if 0 < point < last}


def shares(recipe: Recipe) -> tuple[Shared, ...]:
    """What the recipe's run takes from the cache or leaves there, each part once, for `effbook plan`."""
    names = scene_names(recipe.dataset, recipe.scene) if DATASETS[recipe.dataset].scenes else ()
    found = [part for name in names for part in _of_scene(recipe, name)]
    return tuple({json.dumps([part.kind, part.parts], sort_keys=True): part for part in found}.values())


def _of_scene(recipe: Recipe, scene: str) -> list[Shared]:
    """The parts of a scene's training, and of what it rests on; their seconds add up."""
    kind, parts, _ = address(recipe, scene)
    if recipe.after_training:
        return [*_of_scene(recipe.plain(quantised="", after_training=False), scene), Shared(kind, parts, 0.0)]
    source, done = recipe.codes_of(scene), 0
    found = [] if source is None else _of_scene(recipe, source)
    for point, (of_state, until, _) in state_addresses(recipe, scene).items():
        found.append(Shared(of_state, until, (point - done) * recipe.seconds_an_iteration))
        done = point
    return [*found, Shared(kind, parts, (recipe.iterations - done) * recipe.seconds_an_iteration)]


def _parts(recipe: Recipe, scene: str, upto: int | None = None) -> dict[str, object]:
    """What a scene after training, or after `upto` iterations, depends on: the fields that act, and the data."""
    idle = {"storage", "scene"}
    fields = recipe.plain().fields
    if not recipe.quantised or upto is not None:
        idle |= {name for name in fields if name.startswith(("codes_", "kmeans_"))} | {"quantised", "after_training"}
    if not recipe.penalty or (upto is not None and upto <= recipe.penalty_start):
        idle |= {"penalty", "penalty_start", "penalty_end", "prune_interval"}
    return {
        "scene": scene,
        "upto": upto,
        "fields": {name: value for name, value in fields.items() if name not in idle},
        "data": recipe.digests.get(recipe.dataset),
    }
