"""The few-shot experiments at smoke size, and the drawing of images against what the text asks."""

import numpy as np
import pytest
import torch

from effbook import experiments
from effbook.errors import EffbookError
from effbook.experiments.nola.training import trainable
from effbook.experiments.nola.vision import VisionRecipe, few_shot, prepared, subset
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


def test_each_class_has_its_shots_and_validation_has_none_of_them():
    labels = np.repeat(np.arange(7), 30)
    picked, held_out = few_shot(labels, shots=5, validation=50, seed=1)
    assert np.bincount(labels[picked]).tolist() == [5] * 7
    assert len(held_out) == 50
    assert not set(picked) & set(held_out)


def test_another_sample_set_has_other_images_and_the_same_one_the_same():
    labels = np.repeat(np.arange(7), 30)
    first, again, other = (few_shot(labels, shots=5, validation=0, seed=seed)[0] for seed in (0, 0, 1))
    assert (first == again).all()
    assert set(first) != set(other)


def test_three_initialisations_share_a_sample_set_as_in_the_paper():
    assert [VisionRecipe(seed=seed).group() for seed in range(12)] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert [VisionRecipe(seed=seed, initialisations=1).group() for seed in range(3)] == [0, 1, 2]


def test_the_test_images_are_the_same_for_all_runs():
    assert (subset(1000, 10) == subset(1000, 10)).all()
    assert len(subset(1000, None)) == 1000


def test_nola_in_the_mlp_trains_a_third_of_loras_parameters_as_in_table_3_15():
    counts = {}
    for method, target in (("lora", "qv"), ("nola", "mlp"), ("nola", "qv")):
        recipe = VisionRecipe(model="toy", method=method, target=target, k=32, image_px=28)
        counts[method, target] = trainable(recipe.adapted_backbone())
    assert counts["lora", "qv"] == 2 * 2 * 4 * (32 + 32)  # layers x (q, v) x rank x (in + out)
    assert counts["nola", "mlp"] == counts["nola", "qv"] == 2 * 2 * 2 * 32


def test_pixels_are_standardised_and_grey_becomes_three_channels():
    grey = torch.full((2, 28, 28), 255, dtype=torch.uint8)
    x = prepared(grey, size_px=14, mean=(0.5, 0.25, 0.0), deviation=(0.5, 0.25, 2.0))
    assert x.shape == (2, 3, 14, 14)
    torch.testing.assert_close(x[0, :, 3, 3], torch.tensor([1.0, 3.0, 0.5]))


@pytest.mark.parametrize(
    ("field", "value"),
    [("shots", 0), ("rank", 0), ("k", -1), ("method", "magic"), ("target", "head"), ("learning_rates", ())],
)
def test_impossible_values_are_refused(field, value):
    with pytest.raises(EffbookError):
        VisionRecipe(**{field: value})


def test_what_no_package_holds_has_no_mini_run():
    with pytest.raises(NotInProfileError):
        scale(VisionRecipe(model="vit-b-mae"), "mini")
    with pytest.raises(NotInProfileError):
        scale(VisionRecipe(dataset="cub200"), "mini")
