"""SimReg's recipes at smoke size: what is trained, what is shared, and what is judged."""

import dataclasses
import json

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from effbook import experiments
from effbook.errors import EffbookError
from effbook.experiments.shared.splits import normalised, split
from effbook.experiments.simreg import learning
from effbook.experiments.simreg.cutting import cut
from effbook.experiments.simreg.detection import DetectionRecipe
from effbook.experiments.simreg.dimensions import DimensionRecipe
from effbook.experiments.simreg.evaluations import (
    DistanceRecipe,
    LinearRecipe,
    NearestRecipe,
    TransferMeanRecipe,
)
from effbook.experiments.simreg.training import DistillRecipe
from effbook.runs.batch import execute_all
from effbook.runs.execute import execute
from effbook.runs.profiles import scale
from effbook.runs.recipe import Context

experiments.load()


def smoke(cls, **fields):
    return scale(cls(**fields), "smoke")


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """One for all: distillations are kept in its cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFFBOOK_WORK", str(tmp_path_factory.mktemp("kept")))
        yield Context(profile="smoke", folder=tmp_path_factory.mktemp("context"))


@pytest.fixture
def kept(monkeypatch, context, tmp_path_factory):
    """The module's context, whose cache the test reads and fills."""
    monkeypatch.setenv("EFFBOOK_WORK", str(context.folder / "work"))
    return context


def pixels():
    return normalised(split("toy-shapes", "test", size_px=28, wanted=40, seed=0).images)


@pytest.mark.parametrize(
    "fields",
    [
        {"objective": "simreg", "head": "2L"},
        {"objective": "regress", "head": "linear"},
        {"objective": "regress-bn", "head": "linear"},
        {"objective": "compress-1q"},
        {"objective": "compress-2q", "head": "none", "schedule": "steps"},
        {"teachers": ("moco-v2", "byol", "swav")},
        {"same": False, "student_view": "strong"},
    ],
)
def test_every_objective_and_view_trains(kept, fields):
    recipe = smoke(DistillRecipe, **fields)
    found = recipe.run(kept)
    assert len(found.series["loss"]) == 2
    assert all(torch.isfinite(torch.tensor(found.series["loss"])))
    heads = found.metrics["head_parameters"]
    assert (heads == 0) == (recipe.head == "none")


def test_the_teacher_is_the_network_that_the_other_chapter_trains_from_the_same_seed(kept):
    recipe = smoke(NearestRecipe, teachers=("byol",), seed=1)
    (own,) = recipe.taught().values()
    assert (own.name, own.method, own.seed) == ("cmsf-train", "byol", 1)
    x, networks = pixels(), (learning.new_teacher(recipe, "own-byol", kept), own.network(kept))
    with torch.no_grad():
        torch.testing.assert_close(*(network(x) for network in networks))
    other = smoke(NearestRecipe, teachers=("byol",))
    assert recipe.parts()["taught"] != other.parts()["taught"]


def test_a_student_of_its_teachers_form_does_not_start_where_that_did():
    from effbook.experiments.cmsf.inputs import new_encoder

    recipe = smoke(DistillRecipe, teachers=("byol",))
    images = split("toy-shapes", "train", size_px=28, wanted=96, seed=0)
    student, start = learning.new_student(recipe, images), new_encoder(recipe.taught()["own-byol"], images)
    assert [p.shape for p in student.parameters()] == [p.shape for p in start.parameters()]
    pairs = zip(student.parameters(), start.parameters(), strict=True)
    trained = [pair for pair in pairs if pair[0].requires_grad and pair[0].ndim > 1]
    assert trained
    assert not any(torch.equal(*pair) for pair in trained)


def test_at_lab_the_teachers_are_larger_than_the_students():
    recipe = scale(DistillRecipe(), "lab")
    assert recipe.student == "resnet18"
    assert recipe.taught()["own-msf"].encoder == "resnet50"


@pytest.mark.slow
def test_a_process_of_its_own_knows_the_other_chapters_recipes_too(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFBOOK_RECORDS", str(tmp_path / "records"))
    pairs = [(smoke(NearestRecipe, seed=seed), "smoke") for seed in range(2)]
    found = execute_all(pairs, jobs=2, quiet=True)
    assert [record.recipe.fields["teachers"] for record in found] == [["own-msf"]] * 2


def test_a_distance_is_two_minus_two_cosines_between_the_heads_output_and_the_teachers_features(kept):
    recipe = smoke(DistanceRecipe, head="2L", layer="head")
    x = pixels()
    teacher = learning.new_teacher(recipe, recipe.teachers[0], kept)
    folder = learning.distilled(recipe, kept)
    student = learning.kept_student(recipe, kept)
    head = learning.kept_student(recipe, kept, with_head=True)[1]
    assert (folder / "heads.safetensors").exists()
    with torch.no_grad():
        cosines = (normalize(head(student(x)), dim=1) * normalize(teacher(x), dim=1)).sum(1)
    assert recipe.run(kept).metrics["mse"] == pytest.approx((2 - 2 * cosines).mean().item(), abs=1e-5)


def test_a_layer_of_another_length_than_the_teacher_has_no_distance_and_says_so(kept):
    found = smoke(DistanceRecipe, student="resnet50").run(kept)
    assert found.metrics["mse"] is None
    assert "other lengths" in found.notes["mse"]


def test_layers_are_what_hooks_would_see(kept):
    recipe = smoke(NearestRecipe, head="4L-equal")
    whole = learning.kept_student(recipe, kept, with_head=True)
    student, head = whole
    x = pixels()
    with torch.no_grad():
        features = student(x)
        wanted = {
            "backbone": features,
            "head": head(features),
            "head-2": head[:4](features),
            "resblk-4": features,  # 128 channels, averaged over space
        }
        for layer, each in wanted.items():
            found = dataclasses.replace(recipe, layer=layer).embedder(kept)(x)
            torch.testing.assert_close(found, each, atol=1e-5, rtol=1e-4)
        early = dataclasses.replace(recipe, layer="resblk-1").embedder(kept)(x)
    assert abs(early.shape[1] - features.shape[1]) <= features.shape[1] // 2


def test_the_second_layer_has_the_teachers_length_and_no_activation(kept):
    recipe = smoke(NearestRecipe, head="4L-equal", layer="head-2")
    found = recipe.embedder(kept)(pixels())
    teacher = learning.new_teacher(recipe, recipe.teachers[0], kept)
    assert found.shape[1] == learning.width(recipe, teacher)
    assert (found < 0).any()


def test_the_teacher_can_be_judged_in_the_students_place(kept):
    recipe = smoke(NearestRecipe, layer="teacher")
    x = pixels()
    with torch.no_grad():
        torch.testing.assert_close(recipe.embedder(kept)(x), recipe.taught()["own-msf"].network(kept)(x))
    assert set(recipe.run(kept).metrics) == {"nn1", "nn20"}


def test_students_that_see_the_same_views_share_the_teachers_features(kept, monkeypatch):
    made = []
    original = learning.cached_features
    monkeypatch.setattr(learning, "cached_features", lambda *a, **k: made.append(1) or original(*a, **k))
    for head in ("linear", "2L"):
        recipe = dataclasses.replace(smoke(DistillRecipe, head=head), cached=True, views=2)
        recipe.run(kept)
    assert made == [1]


def test_features_that_are_cached_give_the_student_that_a_teacher_asked_anew_gives(kept):
    fields = {"head": "linear", "epochs": 1}
    asked = dataclasses.replace(smoke(DistillRecipe, **fields), epochs=1)
    kept_ones = dataclasses.replace(asked, cached=True, views=1)
    first, second = (learning.kept_student(one, kept) for one in (asked, kept_ones))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_the_mean_of_transfer_is_over_the_records_of_its_parts(tmp_path, monkeypatch):
    for name in ("EFFBOOK_WORK", "EFFBOOK_RECORDS"):
        monkeypatch.setenv(name, str(tmp_path / name))
    recipe = smoke(TransferMeanRecipe)
    metrics = execute(recipe, profile="smoke", quiet=True).metrics
    assert metrics["mean"] == metrics["accuracy_digits"]


def test_linear_evaluation_of_backbone_and_head_differ(kept):
    own, head = (smoke(LinearRecipe, layer=layer).run(kept).metrics for layer in ("backbone", "head"))
    assert own != head


def test_the_history_holds_what_is_thrown_away(kept):
    recipe = smoke(DistillRecipe, head="2L")
    history = json.loads((learning.distilled(recipe, kept) / "history.json").read_text())
    m, d = (
        learning.new_student(recipe).num_features,
        learning.width(recipe, learning.new_teacher(recipe, "own-msf", kept)),
    )
    assert history["head_parameters"] == (m * 2 * m + 2 * m) + 2 * 2 * m + (2 * m * d + d)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"teachers": ("moco-v3",)}, "no teacher named 'moco-v3'"),
        ({"teachers": ()}, "name at least one"),
        ({"teachers": ("own-byol",)}, "do not go together"),
        ({"taught_at": "mini"}, "do not go together"),
        ({"head": "2L", "layer": "head-2"}, "no second layer"),
        ({"objective": "compress-2q", "head": "none", "layer": "head"}, "no head to look at"),
        ({"student_view": "strong"}, "same view cannot be"),
        ({"objective": "compress-2q", "queue": 100}, "100"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(fields, said):
    with pytest.raises(EffbookError, match=said):
        NearestRecipe(**fields)


def test_several_teachers_have_no_one_distance():
    with pytest.raises(EffbookError, match="several teachers"):
        DistanceRecipe(teachers=("byol", "swav"), layer="head")


def test_a_change_of_the_other_chapters_code_concerns_these_records():
    assert "effbook.experiments.cmsf.training" in smoke(NearestRecipe, head="2L").modules()
    assert not any("cmsf" in module for module in NearestRecipe().modules())


def test_packaged_teachers_see_enlarged_images(kept, monkeypatch):
    seen = []

    class Means(nn.Module):
        def forward(self, x):
            seen.append(tuple(x.shape))
            return x.mean((2, 3))

    monkeypatch.setattr(learning, "mobilenet_v2", Means)
    recipe = dataclasses.replace(smoke(NearestRecipe), teachers=("mobilenet-v2",), taught_at="", taught_as=())
    network = learning.new_teacher(recipe, "mobilenet-v2", kept)
    assert network(torch.zeros(2, 3, 28, 28)).shape == (2, 3)
    assert seen == [(2, 3, 64, 64)]


def test_a_detector_is_trained_on_the_cut_student(kept):
    recipe = smoke(DetectionRecipe, head="linear")
    found = recipe.run(kept)
    assert set(found.metrics) == {"ap50", "ap", "ap75"}
    assert len(found.series["loss"]) == recipe.steps


@pytest.mark.parametrize("student", ["small-half", "small-deep", "resnet18"])
def test_the_parts_of_a_cut_student_are_the_whole(student):
    recipe = dataclasses.replace(smoke(NearestRecipe), student=student)
    network = learning.new_student(recipe).eval()
    x = pixels()[:4]
    trunk, head = cut(network)
    with torch.no_grad():
        shared = trunk(x)
        torch.testing.assert_close(head(shared), network(x), atol=1e-5, rtol=1e-4)
    assert (shared.shape[1], head.num_features) == (trunk.out_channels, network(x).shape[1])


def test_canvases_of_the_test_show_test_images_alone():
    recipe = smoke(DetectionRecipe)
    train, test = (recipe.seen(part) for part in ("train", "test"))
    assert (len(train.images), len(test.images)) == (8, 4)
    assert not torch.equal(train.images[:4], test.images)


@pytest.mark.parametrize(
    ("network", "m"), [("resnet18", 512), ("mobilenet-v2", 1280), ("resnet50", 2048), ("resnet50-x4", 8192)]
)
def test_lengths_of_features_are_those_of_the_text(network, m, tmp_path):
    found = DimensionRecipe(network=network).run(Context(profile="paper", folder=tmp_path))
    assert found.metrics["dimension"] == m


def test_a_teachers_checkpoint_is_not_taken_for_that_of_the_next(kept, monkeypatch):
    monkeypatch.setattr(Context, "due", lambda self, seconds=0.0: True)
    recipe = smoke(DistillRecipe, teachers=("byol", "swav"), seed=3)
    assert len(recipe.run(kept).series["loss"]) == 2


def test_teachers_that_are_trained_otherwise_by_now_make_another_recipe(monkeypatch):
    recipe = smoke(NearestRecipe, teachers=("byol",))
    assert len(recipe.taught_as) == 1
    with pytest.raises(EffbookError, match="otherwise by now"):
        dataclasses.replace(recipe, taught_as=("0" * 12,))


def test_a_probe_trains_its_teachers_in_seconds():
    recipe = scale(NearestRecipe(), "mini")
    probe = dataclasses.replace(recipe, **recipe.probe())
    assert [one.epochs for one in probe.taught().values()] == [2]
