"""Training from scratch: exact counts, the augmentation against plain loops, and smoke runs."""

from dataclasses import replace

import pytest
import torch

from effbook import experiments
from effbook.errors import EffbookError
from effbook.experiments.nola.scratch_cnn import ScratchCNNRecipe, low_rank
from effbook.experiments.nola.scratch_mlp import ScratchMLPRecipe
from effbook.experiments.shared.training import trainable
from effbook.runs.profiles import scale
from effbook.runs.recipe import Context

experiments.load()


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"method": "full"}, 269_722),
        ({"method": "nola", "k": 250, "k_classifier": 1000}, 12_876),  # 19 x 500 + 2000 + 1376 of batch norm
        ({"method": "pranc", "k": 250, "k_classifier": 250}, 11_376),  # 20 x 500 + 1376
        ({"method": "lora", "rank": 3}, 13_250),
    ],
)
def test_resnet20_trains_this_many_parameters(fields, count):
    assert trainable(ScratchCNNRecipe(**fields).network(10)) == count


@pytest.mark.parametrize("method", ["full", "pranc", "lora", "nola"])
def test_the_cnn_runs_at_smoke_and_twice_alike(tmp_path, method):
    recipe = scale(ScratchCNNRecipe(method=method), "smoke")
    first, second = (recipe.run(Context(profile="smoke", folder=tmp_path / name)) for name in "ab")
    assert first.series == second.series
    assert first.metrics["accuracy"] == second.metrics["accuracy"]


@pytest.mark.parametrize("method", ["pranc", "nola"])
def test_the_mlp_learns_with_exactly_its_coefficients(tmp_path, method):
    recipe = ScratchMLPRecipe(method=method, dataset="digits", epochs=30, train_images=512, hidden=64, batch_size=64)
    result = recipe.run(Context(profile="smoke", folder=tmp_path))
    assert result.metrics["trainable"] == 2 * 32
    assert result.metrics["train_loss"] < 0.8 * result.series["train_loss"][0]


def test_lora_from_scratch_starts_with_the_variance_of_a_kaiming_weight():
    model = torch.nn.Sequential(torch.nn.Conv2d(64, 64, 3, bias=False))
    low_rank(model, ["0"], rank=48, seed=0)
    assert model[0].weight.var().item() == pytest.approx(2 / (64 * 9), rel=0.15)


def test_lora_of_full_rank_can_be_any_weight():
    model = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3, bias=False))
    low_rank(model, ["0"], rank=99, seed=0)
    wanted = torch.randn(4, 4, 3, 3)
    product = model[0].parametrizations.weight[0]
    u, s, v = torch.linalg.svd(wanted.view(12, 12))
    with torch.no_grad():
        product.a.copy_(u * s)
        product.b.copy_(v)
    torch.testing.assert_close(model[0].weight, wanted, rtol=1e-4, atol=1e-5)


def test_an_odd_number_of_coefficients_is_refused_for_nola():
    with pytest.raises(EffbookError, match="even"):
        ScratchMLPRecipe(coefficients_per_layer=31)


@pytest.mark.parametrize("field", ["train_images", "test_images"])
def test_more_images_than_there_are_are_refused_by_the_cnn(tmp_path, field):
    recipe = replace(scale(ScratchCNNRecipe(), "smoke"), **{field: 10**6})
    with pytest.raises(EffbookError, match="1000000 items are asked for where"):
        recipe.run(Context(profile="smoke", folder=tmp_path))


def test_more_images_than_there_are_are_refused_by_the_mlp(tmp_path):
    recipe = ScratchMLPRecipe(dataset="digits", train_images=10**6)
    with pytest.raises(EffbookError, match="1000000 training images are asked for where"):
        recipe.run(Context(profile="smoke", folder=tmp_path))


@pytest.mark.parametrize("recipe", [ScratchCNNRecipe, ScratchMLPRecipe])
@pytest.mark.parametrize("field", ["learning_rate", "train_images", "epochs", "batch_size"])
def test_impossible_values_are_refused(recipe, field):
    with pytest.raises(EffbookError, match=f"{field} is -1.*choose {field} above 0"):
        recipe(**{field: -1})
