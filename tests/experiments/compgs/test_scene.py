"""The recipe of scenes: what it stores and measures at the smallest scale, what it shares, and what it refuses."""

import dataclasses

import pytest
import torch

from effbook.errors import EffbookError
from effbook.experiments.compgs import scene as module
from effbook.experiments.compgs.datasets import DATASETS, load_scene, scene_names
from effbook.experiments.compgs.scene import SceneRecipe
from effbook.experiments.context import Context
from effbook.experiments.profiles import NotInProfileError, scale

pytest.importorskip("mitsuba")

FOUR = "dc sh scale rotation"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFBOOK_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def smoke(**fields):
    return scale(SceneRecipe(dataset="mip-nerf360", **fields), "smoke")


def run(recipe, tmp_path):
    return recipe.run(Context(profile="smoke", folder=tmp_path / recipe.key))


def test_a_run_measures_pictures_bytes_and_gaussians(cache, tmp_path):
    plain, small = run(smoke(), tmp_path), run(smoke(quantised=FOUR), tmp_path)
    for result in (plain, small):
        assert 0 < result.metrics["psnr"] < 60
        assert 0 < result.metrics["ssim"] <= 1
        assert result.metrics["lpips"] is None
        assert "lpips" in result.notes
        assert result.series["psnr by scene"] == [result.metrics["psnr"]]
    n = plain.metrics["gaussians"]
    assert 236 * n < plain.metrics["bytes"] < 236 * n + 1000
    assert small.metrics["bytes"] < 0.4 * plain.metrics["bytes"]
    assert small.metrics["entropy_bytes"] < small.metrics["packed_bytes"] == small.metrics["bytes"]


def test_rows_that_differ_in_storage_share_the_trained_scene(cache, tmp_path, monkeypatch):
    trained = []
    train = SceneRecipe._train
    monkeypatch.setattr(SceneRecipe, "_train", lambda self, *a: trained.append(self) or train(self, *a))
    first = run(smoke(quantised=FOUR), tmp_path)
    bitq = run(smoke(quantised=FOUR, storage="bitq"), tmp_path)
    assert len(trained) == 1
    assert bitq.metrics["bytes"] < first.metrics["bytes"]
    assert bitq.metrics["gaussians"] == first.metrics["gaussians"]
    assert bitq.metrics["train_minutes"] == first.metrics["train_minutes"]
    run(smoke(), tmp_path)
    run(smoke(quantised=FOUR, after_training=True), tmp_path)
    run(smoke(storage="int8"), tmp_path)
    assert len(trained) == 2  # the plain scene, once for all three


def test_without_harmonics_none_are_stored(cache, tmp_path):
    found = run(smoke(sh_degree=0), tmp_path)
    assert found.metrics["bytes"] < 4 * 14 * found.metrics["gaussians"] + 1000


def test_the_same_seed_gives_the_same_numbers(cache, tmp_path, monkeypatch):
    one = run(smoke(quantised=FOUR, seed=3), tmp_path)
    monkeypatch.setenv("EFFBOOK_DATA", str(tmp_path / "elsewhere"))
    other = run(smoke(quantised=FOUR, seed=3), tmp_path)
    for name in ("psnr", "ssim", "bytes", "entropy_bytes", "gaussians"):
        assert one.metrics[name] == other.metrics[name]


def test_words_say_what_gets_a_codebook():
    books = SceneRecipe(dataset="still-lifes", quantised="sh+dc scale position").compression().books
    assert [book.parameters for book in books] == [("sh_rest", "sh_dc"), ("scales",), ("means",)]
    assert [book.codes for book in books] == [4096, 16_384, 16_384]


@pytest.mark.parametrize(
    "fields",
    [
        {"quantised": "colour"},
        {"quantised": "sh sh"},
        {"after_training": True},
        {"scene": "bicycle"},
        {"shrink": 0},
        {"sh_degree": 4},
        {"kmeans_end": 10},
        {"dataset": "lego"},
    ],
)
def test_fields_that_cannot_be_run_are_refused(fields):
    with pytest.raises(EffbookError):
        SceneRecipe(**{"dataset": "still-lifes"} | fields)


def test_mini_scales_by_three_numbers():
    whole = SceneRecipe(dataset="mip-nerf360", quantised=FOUR, codes_covariance=32_768, penalty=1e-7)
    mini = scale(whole, "mini")
    assert mini.dataset == "still-lifes"
    for name in ("iterations", "kmeans_start", "kmeans_end", "kmeans_interval", "penalty_end", "densify_interval"):
        assert getattr(mini, name) * 10 == getattr(whole, name)
    assert (mini.codes_colour * 32, mini.codes_covariance * 32) == (whole.codes_colour, whole.codes_covariance)
    assert mini.penalty == pytest.approx(330 * whole.penalty)
    assert scale(whole, "paper") == whole
    assert whole.needs() == ("cuda",)
    assert mini.needs() == ()


def test_what_nothing_stands_in_for_has_no_mini_run():
    for fields in ({"dataset": "tanks-and-temples"}, {"scene": "garden"}, {"least_opacity": 0.1}):
        with pytest.raises(NotInProfileError):
            scale(SceneRecipe(**{"dataset": "mip-nerf360"} | fields), "mini")


def test_a_data_set_that_is_not_here_says_what_to_fetch_and_where_to(tmp_path):
    for name, described in DATASETS.items():
        assert scene_names(name, "all")
        if described.layout == "generated":
            continue
        scene = scene_names(name, "all")[0]
        with pytest.raises(EffbookError, match=r"fetch the .* and put it into"):
            load_scene(name, scene, shrink=1, points=10, seed=0, cache=tmp_path, say=print)


def test_storage_ways_are_those_of_the_tables():
    ways = {name: module.storage_of(name) for name in ("packed", "bitq", "int16", "int8", "int8-no-pos", "int4-no-pos")}
    assert ways["bitq"].plain_bits == {"means": 16, "opacities": 8}
    assert "means" not in ways["int8-no-pos"].plain_bits
    assert ways["int16"].code_bits == 16


def test_a_shared_codebook_is_that_of_its_source_and_stays_as_it_is(cache, tmp_path, monkeypatch):
    from effbook.experiments.compgs import datasets
    from effbook.experiments.compgs.shared import SharedRecipe

    two = dataclasses.replace(datasets.DATASETS["toy"], scenes={"metals": "", "plastics": ""})
    monkeypatch.setitem(datasets.DATASETS, "toy", two)
    recipe = scale(SharedRecipe(dataset="mip-nerf360", quantised=FOUR), "smoke")
    assert (recipe.dataset, recipe.source) == ("toy", "metals")
    found = run(recipe, tmp_path)
    assert len(found.series["psnr by scene"]) == 2
    context = Context(profile="smoke", folder=tmp_path / "again")
    metals, plastics = (
        recipe._trained(
            load_scene("toy", name, shrink=1, points=recipe.points, seed=0, cache=cache, say=print), context
        )[0]
        for name in ("metals", "plastics")
    )
    for one, other in zip(metals.codebooks, plastics.codebooks, strict=True):
        assert one.parameters == other.parameters
        assert torch.equal(one.codes, other.codes)
    assert not torch.equal(metals.plain["means"], plastics.plain["means"])


def test_only_codes_that_are_trained_can_be_shared():
    from effbook.experiments.compgs.shared import SharedRecipe

    for fields in ({}, {"quantised": FOUR, "after_training": True}, {"quantised": FOUR, "source": "lego"}):
        with pytest.raises(EffbookError):
            SharedRecipe(dataset="mip-nerf360", **fields)
    assert scale(SharedRecipe(dataset="mip-nerf360", quantised=FOUR), "mini").source == "metals"
