"""The few-shot experiments at smoke size, and the drawing of images against what the text asks."""

import pytest

from effbook import experiments
from effbook.errors import EffbookError
from effbook.experiments.nola.vision import VisionRecipe
from effbook.experiments.shared.training import trainable
from effbook.runs.profiles import NotInProfileError, scale
from effbook.runs.recipe import Context

experiments.load()
METHODS = [("nearest", "mlp"), ("linear", "mlp"), ("full", "mlp"), ("lora", "qv"), ("nola", "qv"), ("nola", "mlp")]


@pytest.mark.parametrize(("method", "target"), METHODS)
def test_every_method_runs_at_smoke_and_twice_alike(tmp_path, method, target):
    recipe = scale(VisionRecipe(method=method, target=target), "smoke")
    first, second = (recipe.run(Context(profile="smoke", folder=tmp_path / name)).metrics for name in "ab")
    assert 0 <= first["accuracy"] <= 100
    assert first["accuracy"] == second["accuracy"]


def test_the_best_of_several_learning_rates_is_taken_on_held_out_images(tmp_path):
    recipe = VisionRecipe(
        model="toy",
        dataset="toy-shapes",
        method="linear",
        epochs=3,
        image_px=28,
        learning_rates=(1e-7, 0.5),
        validation_images=40,
        test_images=10,
    )
    metrics = recipe.run(Context(profile="smoke", folder=tmp_path)).metrics
    validation = {rate: metrics[f"validation_accuracy_{rate}"] for rate in (1e-7, 0.5)}
    assert metrics["learning_rate"] == max(validation, key=validation.get)


def test_three_initialisations_share_a_sample_set_as_in_the_paper():
    assert [VisionRecipe(seed=seed).group() for seed in range(12)] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert [VisionRecipe(seed=seed, initialisations=1).group() for seed in range(3)] == [0, 1, 2]


def test_nola_in_the_mlp_trains_a_third_of_loras_parameters_as_in_table_3_15():
    counts = {}
    for method, target in (("lora", "qv"), ("nola", "mlp"), ("nola", "qv")):
        recipe = VisionRecipe(model="toy", method=method, target=target, k=32, image_px=28)
        counts[method, target] = trainable(recipe.adapted_backbone())
    assert counts["lora", "qv"] == 2 * 2 * 4 * (32 + 32)  # layers x (q, v) x rank x (in + out)
    assert counts["nola", "mlp"] == counts["nola", "qv"] == 2 * 2 * 2 * 32


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shots", 0),
        ("rank", 0),
        ("k", -1),
        ("method", "magic"),
        ("target", "head"),
        ("learning_rates", ()),
        ("learning_rates", (1e-3, -1e-3)),
        ("blocks", 0),
        ("test_images", 0),
        ("validation_images", -1),
    ],
)
def test_impossible_values_are_refused(field, value):
    with pytest.raises(EffbookError):
        VisionRecipe(**{field: value})


SMALL = {"model": "toy", "dataset": "toy-shapes", "image_px": 28, "method": "nearest", "learning_rates": (1e-3,)}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"shots": 500}, r"500 shots cannot be drawn of class \d, which has \d+ items; choose shots of at most"),
        ({"test_images": 10**6}, "1000000 items are asked for where"),
        ({"blocks": 3}, "3 blocks are asked for where 2 are there; choose 2 or fewer"),
        ({"learning_rates": (1e-3, 1e-4), "validation_images": 10**6}, "1000000 items to validate with"),
    ],
)
def test_more_than_there_is_is_refused_instead_of_recorded(tmp_path, fields, sentence):
    with pytest.raises(EffbookError, match=sentence):
        VisionRecipe(**(SMALL | fields)).run(Context(profile="smoke", folder=tmp_path))


def test_what_no_package_holds_has_no_mini_run():
    with pytest.raises(NotInProfileError):
        scale(VisionRecipe(model="vit-b-mae"), "mini")
    with pytest.raises(NotInProfileError):
        scale(VisionRecipe(dataset="cub200"), "mini")
