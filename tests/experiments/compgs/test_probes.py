"""What a recheck runs of a recipe: short, and with all that the method does."""

import dataclasses

import pytest

from effbook.compgs import kmeans
from effbook.compgs import quantise as compgs
from effbook.experiments.compgs.codes import CodesRecipe
from effbook.experiments.compgs.scene import SceneRecipe
from effbook.experiments.compgs.shared import SharedRecipe
from effbook.experiments.compgs.showcase import VARIANTS, ShowcaseRecipe
from effbook.experiments.compgs.spread import SpreadRecipe
from effbook.experiments.compgs.storage import StorageRecipe
from effbook.gaussians import train
from effbook.runs.context import Context
from effbook.runs.profiles import scale

FOUR = "dc sh scale rotation"
WHOLE = [
    SceneRecipe(dataset="mip-nerf360"),
    SceneRecipe(dataset="mip-nerf360", quantised=FOUR, penalty=1e-7, storage="bitq"),
    SceneRecipe(dataset="tanks-and-temples", quantised=FOUR, after_training=True),
    CodesRecipe(dataset="mip-nerf360", scene="counter", quantised="sh", counted="sh"),
    SharedRecipe(dataset="mip-nerf360", quantised=FOUR),
    SpreadRecipe(dataset="mip-nerf360"),
]


def probed(recipe):
    return dataclasses.replace(recipe, **recipe.probe())


@pytest.mark.parametrize("whole", WHOLE, ids=lambda recipe: recipe.name)
def test_a_probe_is_one_scene_in_300_iterations_of_which_each_phase_has_several(whole):
    mini = scale(whole, "mini")
    short = probed(mini)
    assert short.scene in ("metals", "plastics", "fox")
    assert short.iterations == 300
    for start, end, every in (
        (short.densify_start, short.densify_end, short.densify_interval),
        (short.kmeans_start, short.kmeans_end, short.kmeans_interval),
        (short.penalty_start, short.penalty_end, short.prune_interval),
        (short.reset_interval, short.densify_end, short.reset_interval),
    ):
        assert (end - start) // every >= 2
    same = {"storage", "quantised", "after_training", "penalty", "dataset", "shrink", "points", "most_gaussians"}
    assert {name: getattr(short, name) for name in same} == {name: getattr(mini, name) for name in same}


def test_a_probe_of_shared_codes_trains_a_scene_that_takes_them():
    short = probed(scale(SharedRecipe(dataset="mip-nerf360", quantised=FOUR), "mini"))
    assert short.codes_of(short.scene) == "metals"
    assert probed(scale(SpreadRecipe(dataset="mip-nerf360"), "mini")).runs == 2


def test_a_probe_of_the_showcase_trains_every_variant_in_short():
    short = probed(ShowcaseRecipe())
    for variant in VARIANTS:
        assert short.scaled(variant).iterations == 100
        assert short.scaled(variant).codes_covariance < short.most_gaussians
    assert StorageRecipe(method="compgs", gaussians=1).probe() == {}


def test_all_that_the_method_does_is_done_in_a_probe_at_least_twice(tmp_path, monkeypatch):
    pytest.importorskip("mitsuba")
    monkeypatch.setenv("EFFBOOK_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("EFFBOOK_WORK", str(tmp_path / "work"))
    changed = {"grown": 0, "pruned": 0, "assigned": 0}

    def grown(gaussians, *arguments, **options):
        found = densify(gaussians, *arguments, **options)
        changed["grown"] += bool((found[1] < 0).any())
        return found

    def pruned(gaussians, least_opacity):
        found = prune(gaussians, least_opacity)
        changed["pruned"] += len(found[0]) < len(gaussians)
        return found

    def assigned(values, codes):
        changed["assigned"] += 1
        return assign(values, codes)

    densify, prune, assign = train.densify, compgs.prune, kmeans.assign
    monkeypatch.setattr(train, "densify", grown)
    monkeypatch.setattr(compgs, "prune", pruned)
    monkeypatch.setattr(kmeans, "assign", assigned)
    mini = scale(SceneRecipe(dataset="mip-nerf360", quantised=FOUR, penalty=1e-7), "mini")
    toy = probed(dataclasses.replace(mini, dataset="toy", shrink=1, every_nth_view=1))
    toy.run(Context(profile="probe", folder=tmp_path))
    assert min(changed.values()) >= 2, changed
