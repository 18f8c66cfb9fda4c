"""The recipe of scenes: what it stores and measures at the smallest scale, what it shares, and what it refuses."""

import dataclasses
from datetime import UTC, datetime

import pytest
import torch

from effbook.errors import EffbookError
from effbook.experiments.compgs import sharing, training
from effbook.experiments.compgs.scene import STORAGES, SceneRecipe
from effbook.gaussians import toolkit
from effbook.runs.context import Context
from effbook.runs.profiles import NotInProfileError, scale

pytest.importorskip("mitsuba")

FOUR = "dc sh scale rotation"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def cache(rendered, tmp_path, monkeypatch):
    """Scenes are rendered once for all tests; what is trained is kept for one test alone."""
    monkeypatch.setenv("EFFBOOK_DATA", str(rendered))
    monkeypatch.setenv("EFFBOOK_WORK", str(tmp_path / "work"))


@pytest.fixture
def trainings(cache, monkeypatch):
    """A list that grows by a recipe each time one trains a scene."""
    seen = []
    train = training._train
    monkeypatch.setattr(training, "_train", lambda recipe, *a, **b: seen.append(recipe) or train(recipe, *a, **b))
    return seen


def smoke(**fields):
    return scale(SceneRecipe(dataset="mip-nerf360", **fields), "smoke")


def run(recipe, tmp_path, **known):
    return recipe.run(Context(profile="smoke", folder=tmp_path / recipe.key, **known))


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


def test_rows_that_differ_in_storage_share_the_trained_scene(trainings, tmp_path):
    first = run(smoke(quantised=FOUR), tmp_path)
    bitq = run(smoke(quantised=FOUR, storage="bitq"), tmp_path)
    assert len(trainings) == 1
    assert bitq.metrics["bytes"] < first.metrics["bytes"]
    assert bitq.metrics["gaussians"] == first.metrics["gaussians"]
    assert bitq.metrics["train_minutes"] == first.metrics["train_minutes"]
    run(smoke(), tmp_path)
    run(smoke(quantised=FOUR, after_training=True), tmp_path)
    run(smoke(storage="int8"), tmp_path)
    assert len(trainings) == 2  # the plain scene, once for all three


def test_fresh_trains_again_and_once_for_all_rows_of_a_batch(trainings, tmp_path):
    first = run(smoke(quantised=FOUR), tmp_path)
    since = datetime.now(UTC)
    again = run(smoke(quantised=FOUR), tmp_path, fresh_since=since)
    assert len(trainings) == 2
    run(smoke(quantised=FOUR, storage="bitq"), tmp_path, fresh_since=since)
    assert len(trainings) == 2
    assert again.metrics["psnr"] == first.metrics["psnr"]
    context = Context(profile="smoke", folder=tmp_path / "taken", fresh_since=since)
    smoke(quantised=FOUR, storage="int8").run(context)
    assert [one.kind for one in context.taken] == [sharing.SCENE]


def test_codes_are_counted_on_the_scene_that_was_trained_and_loaded_once(trainings, tmp_path, monkeypatch):
    from effbook.experiments.compgs import loading
    from effbook.experiments.compgs.codes import CodesRecipe

    loaded = []
    load = loading.load_scene
    monkeypatch.setattr(loading, "load_scene", lambda *a, **b: loaded.append(a) or load(*a, **b))
    run(scale(CodesRecipe(dataset="mip-nerf360", quantised=FOUR), "smoke"), tmp_path)
    run(smoke(quantised=FOUR), tmp_path)
    assert (len(trainings), len(loaded)) == (1, 2)


def test_without_harmonics_none_are_stored(cache, tmp_path):
    found = run(smoke(sh_degree=0), tmp_path)
    assert found.metrics["bytes"] < 4 * 14 * found.metrics["gaussians"] + 1000


def test_the_same_seed_gives_the_same_numbers(cache, tmp_path, monkeypatch):
    one = run(smoke(quantised=FOUR, seed=3), tmp_path)
    monkeypatch.setenv("EFFBOOK_WORK", str(tmp_path / "elsewhere"))
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
        {"points": 3},
        {"most_gaussians": 0},
        {"iterations": 0},
        {"kmeans_interval": 0},
        {"prune_interval": 0},
        {"codes_colour": 0},
        {"densify_start": -1},
        {"penalty": -1e-7},
        {"least_opacity": -0.1},
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
    assert (mini.codes_colour * 64, mini.codes_covariance * 64) == (whole.codes_colour, whole.codes_covariance)
    assert mini.penalty == pytest.approx(660 * whole.penalty)
    assert scale(whole, "paper") == whole
    assert whole.needs() == toolkit.needs()
    assert mini.needs() == ()


def test_what_nothing_stands_in_for_has_no_mini_run():
    for fields in ({"dataset": "deep-blending"}, {"scene": "stump"}, {"least_opacity": 0.1}, {"dataset": "dl3dv-140"}):
        with pytest.raises(NotInProfileError):
            scale(SceneRecipe(**{"dataset": "mip-nerf360"} | fields), "mini")


def test_every_scene_that_stands_in_is_one_of_ours():
    from effbook.experiments.compgs.datasets import scene_names
    from effbook.experiments.compgs.profiles import STAND_INS

    for (dataset, scene), (own, name) in STAND_INS.items():
        assert scene_names(dataset, scene)
        assert scene_names(own, name)


def test_lab_trains_in_full_size_with_the_penalty_scaled_to_its_gaussians():
    whole = SceneRecipe(dataset="mip-nerf360", quantised=FOUR, penalty=1e-7)
    lab = scale(whole, "lab")
    assert (lab.dataset, lab.iterations, lab.codes_covariance) == ("still-lifes-800", 30_000, 16_384)
    assert lab.penalty * lab.most_gaussians == pytest.approx(whole.penalty * 3.3e6)
    assert lab.needs() == toolkit.needs()


def test_storage_ways_are_those_of_the_tables():
    assert STORAGES["bitq"].plain_bits == {"means": 16, "opacities": 8}
    assert "means" not in STORAGES["int8-no-pos"].plain_bits
    assert STORAGES["int16"].code_bits == 16
    for name, storage in STORAGES.items():
        assert SceneRecipe(dataset="toy", storage=name).storing() == storage


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
    metals, plastics = (training.trained(recipe, recipe.load(name), context)[0] for name in ("metals", "plastics"))
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


def test_rows_that_differ_late_share_the_iterations_before_and_end_as_if_they_had_not(cache, tmp_path, monkeypatch):
    from effbook.gaussians import train

    steps = []
    draw = train.render
    monkeypatch.setattr(train, "render", lambda *a, **b: steps.append(1) or draw(*a, **b))

    def trained(**fields):
        steps.clear()
        recipe = smoke(**fields)
        found = run(recipe, tmp_path)
        return len(steps), {name: found.metrics[name] for name in ("psnr", "bytes", "gaussians")}

    apart = {}
    for name, fields in {"codes": {"quantised": FOUR}, "both": {"quantised": FOUR, "penalty": 1e-4}}.items():
        monkeypatch.setenv("EFFBOOK_WORK", str(tmp_path / name))
        n, apart[name] = trained(**fields)
        assert n == 30
    monkeypatch.setenv("EFFBOOK_WORK", str(tmp_path / "together"))
    assert trained()[0] == 30
    assert trained(quantised=FOUR) == (30 - 19, apart["codes"])  # from the last iteration before the codes
    assert trained(quantised=FOUR, penalty=1e-4) == (30 - 15, apart["both"])  # from where the penalty begins


def test_the_plan_counts_once_what_rows_share(cache, tmp_path):
    whole = smoke()
    seconds = whole.seconds_an_iteration * whole.iterations
    assert sum(part.seconds for part in whole.shares()) == pytest.approx(seconds)
    assert smoke(storage="bitq").shares() == whole.shares()
    late = smoke(quantised=FOUR, penalty=1e-4)
    assert late.shares()[0] == whole.shares()[0]  # the iterations before the penalty acts
    assert late.shares()[1:] != whole.shares()[1:]
    after = smoke(quantised=FOUR, after_training=True)
    assert after.shares()[:-1] == whole.shares()
    context = Context(profile="smoke", folder=tmp_path / "run")
    after.run(context)
    for part in after.shares():
        assert context.kept(part.kind, part.parts, whole)


def test_the_spread_is_over_as_many_seeds_as_it_says(cache, tmp_path):
    from effbook.experiments.compgs.spread import SpreadRecipe

    recipe = scale(SpreadRecipe(dataset="mip-nerf360"), "smoke")
    found = run(recipe, tmp_path)
    each = found.series["psnr by seed"]
    assert each == [run(smoke(seed=i), tmp_path).metrics["psnr"] for i in range(3)]
    assert found.metrics["diff"] == pytest.approx(max(each) - min(each))
    assert found.metrics["std"] == pytest.approx(float(torch.tensor(each, dtype=torch.float64).std(correction=0)))
    with pytest.raises(EffbookError, match="of at least 2"):
        SpreadRecipe(dataset="mip-nerf360", runs=1)


def test_codes_are_counted_from_the_most_used_on(cache, tmp_path):
    from effbook.experiments.compgs.codes import CodesRecipe

    recipe = scale(CodesRecipe(dataset="mip-nerf360", quantised=FOUR, counted="scale"), "smoke")
    found = run(recipe, tmp_path)
    used = found.series["Gaussians by code"]
    assert used == sorted(used, reverse=True)
    assert sum(used) == found.metrics["gaussians"]
    assert found.metrics["top"] == pytest.approx(100 * used[0] / sum(used))
    assert (len(used), found.metrics["fixed"]) == (16, 4)
    assert 0 < found.metrics["huffman"] <= 4
    with pytest.raises(EffbookError, match="has no codebook"):
        CodesRecipe(dataset="mip-nerf360", quantised="dc", counted="scale")


def test_a_huffman_code_is_as_short_as_can_be():
    from effbook.experiments.compgs.codes import huffman_bits

    assert huffman_bits([8, 4, 2, 1, 1]) == (8 * 1 + 4 * 2 + 2 * 3 + 1 * 4 + 1 * 4) / 16  # powers of two: the entropy
    assert huffman_bits([5, 0, 0]) == 0
    counts = torch.tensor([13.0, 7, 7, 5, 2, 1, 1, 1, 1])
    share = counts / counts.sum()
    entropy = float(-(share * share.log2()).sum())
    assert entropy <= huffman_bits(counts.tolist()) < entropy + 1
