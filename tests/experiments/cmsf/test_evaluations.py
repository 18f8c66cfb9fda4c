"""CMSF's evaluations at smoke size: transfer, its mean, fine-tuning, and a packaged network's features."""

import dataclasses

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from effbook import experiments
from effbook.cmsf import pseudo
from effbook.experiments.cmsf import inputs, learning
from effbook.experiments.cmsf.evaluations import (
    FinetuneRecipe,
    LinearRecipe,
    NearestRecipe,
    TransferMeanRecipe,
    TransferRecipe,
)
from effbook.experiments.cmsf.training import TrainRecipe
from effbook.experiments.shared import splits
from effbook.runs.execute import execute
from effbook.runs.profiles import scale
from effbook.runs.recipe import Context

experiments.load()


def smoke(cls, **fields):
    return scale(cls(**fields), "smoke")


@pytest.fixture
def context(tmp_path):
    return Context(profile="smoke", folder=tmp_path)


@pytest.fixture
def packaged(monkeypatch):
    """A network of 6 features in place of the packaged MobileNet-V2: the means of each channel, and their squares."""

    class Means(nn.Module):
        num_features = 6

        def forward(self, x):
            means = x.mean((2, 3))
            return torch.cat((means, means.square()), 1)

    monkeypatch.setattr(inputs, "mobilenet_v2", Means)


def on_features(cls, **fields):
    recipe = smoke(cls, method="cmsf-sup", k=4, **fields)
    return dataclasses.replace(recipe, encoder="mlp", features_of="mobilenet-v2", views=3)


def test_neighbours_of_raw_pixels_are_those_of_scikit_learn(context):
    recipe = smoke(NearestRecipe, method="none", encoder="pixels")
    train = splits.split("toy-shapes", "train", size_px=28, wanted=96, seed=0)
    test = splits.split("toy-shapes", "test", size_px=28, wanted=40, seed=0)
    x, x_test = (
        nn.functional.normalize(splits.normalised(one.images).flatten(1), dim=1).numpy() for one in (train, test)
    )
    model = KNeighborsClassifier(1, metric="cosine").fit(x, train.labels.numpy())
    right = (model.predict(x_test) == test.labels.numpy()).mean()
    assert recipe.run(context).metrics["nn1"] == pytest.approx(100 * right)


def test_transfer_takes_another_data_set_and_its_mean_is_over_their_records(tmp_path, monkeypatch):
    for name in ("EFFBOOK_WORK", "EFFBOOK_RECORDS"):
        monkeypatch.setenv(name, str(tmp_path / name))
    recipe = smoke(TransferMeanRecipe, method="none")
    each = recipe.each()
    assert [one.target for one in each] == ["digits"]
    single = [execute(one, profile="smoke", quiet=True).metrics["accuracy"] for one in each]
    metrics = execute(recipe, profile="smoke", quiet=True).metrics
    assert metrics == {"accuracy_digits": single[0], "mean": single[0]}
    assert single[0] > 20  # ten digits; a random network, two trials


def test_transfer_of_a_data_set_without_a_rule_holds_out_a_fifth(context, monkeypatch):
    from effbook.data import transfer

    asked, hold_out = [], transfer.hold_out
    monkeypatch.setattr(
        transfer, "hold_out", lambda y, rule, seed: asked.append((len(y), rule)) or hold_out(y, rule, seed=seed)
    )
    recipe = smoke(TransferRecipe, method="none")
    assert 0 <= recipe.run(context).metrics["accuracy"] <= 100
    ((count, rule),) = asked
    assert count == recipe.target_images
    assert rule.val_percent == 20


@pytest.mark.parametrize("rounds", [1, 2])
def test_fine_tuning_guesses_labels_between_its_rounds_only(context, rounds):
    recipe = dataclasses.replace(smoke(FinetuneRecipe, method="byol"), rounds=rounds, tuning_epochs=12)
    result = recipe.run(context)
    assert 0 <= result.metrics["top1"] <= 100
    assert 0 <= result.metrics["guessed_share"] <= 80  # a fifth had labels
    if rounds == 1 or not result.metrics["guessed_share"]:
        assert result.metrics["guessed_share"] == 0
        assert result.metrics["guessed_right"] is None
        assert "confident" in result.notes["guessed_right"]


def test_features_of_views_are_drawn_from_the_seed_and_kept(context, packaged, monkeypatch):
    recipe = on_features(TrainRecipe)
    found = inputs.feature_views(recipe, context)
    assert found.shape == (96, 3, 6)
    assert not torch.equal(found[:, 0], found[:, 1])
    monkeypatch.setattr(inputs, "_of", None)  # a second call computes nothing
    assert torch.equal(inputs.feature_views(recipe, context), found)


def test_other_seeds_draw_other_views(context, packaged):
    recipe = on_features(TrainRecipe)
    one, other = (inputs.feature_views(dataclasses.replace(recipe, seed=seed), context) for seed in (0, 1))
    assert not torch.equal(one, other)


def test_each_network_sees_one_of_the_views_of_an_image(packaged, context):
    recipe = on_features(TrainRecipe)
    kept = inputs.feature_views(recipe, context)
    views = inputs.views_of_features(kept, torch.arange(96), seed=0)
    (batch,) = views.batches([torch.arange(96)], epoch=0)
    for seen in (batch.strong[0], batch.weak):
        places = (seen[:, None] == kept).all(2)  # [N, V]
        assert (places.sum(1) >= 1).all()
        assert (places.sum(0) > 10).all()
    assert not torch.equal(batch.strong[0], batch.weak)


@pytest.mark.parametrize("cls", [NearestRecipe, LinearRecipe, TransferRecipe])
def test_a_network_on_features_is_judged_on_features_of_whole_images(context, packaged, cls):
    recipe = on_features(cls)
    metrics = recipe.run(context).metrics
    assert all(0 <= value <= 100 for value in metrics.values())
    encoder = inputs.kept_encoder(recipe, learning.trained(recipe, context))
    test = splits.split("toy-shapes", "test", size_px=28, wanted=40, seed=0)
    x, y = inputs.embed(recipe, context, encoder, test)
    plain = inputs._of(recipe)(inputs._enlarged(test.images))
    torch.testing.assert_close(x, encoder(plain).detach())
    assert torch.equal(y, test.labels)


@pytest.mark.parametrize("caching", ["online", "offline"])
def test_few_labels_train_and_are_tuned_on_features(context, packaged, monkeypatch, caching):
    fields = {"method": "cmsf-semi", "k": 4, "labelled": 0.1, "threshold": 0.0, "caching": caching}
    features = {"encoder": "mlp", "features_of": "mobilenet-v2", "views": 3}
    training = dataclasses.replace(smoke(TrainRecipe, **fields), **features)
    assert 0 <= training.run(context).metrics["labels"] <= 100

    asked, finetune = [], pseudo.finetune
    monkeypatch.setattr(pseudo, "finetune", lambda *args, **given: asked.append(given) or finetune(*args, **given))
    recipe = dataclasses.replace(smoke(FinetuneRecipe, **fields), **features)
    assert 0 <= recipe.run(context).metrics["top1"] <= 100
    kept, train = inputs.feature_views(recipe, context), splits.train_split(recipe)
    index = torch.tensor([5, 0, 90])
    assert (asked[0]["training"](index)[:, None] == kept[index]).all(2).any(1).all()  # one of its views
    plain = inputs._of(recipe)(inputs._enlarged(train.images[index]))
    torch.testing.assert_close(asked[0]["plain"](index), plain)
