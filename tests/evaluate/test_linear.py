import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from effbook.errors import EffbookError
from effbook.evaluate.linear import LinearSettings, Standardise, fit_linear, linear_evaluation


def _drawn(n=50, m=30, classes=4, dim=6, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    y, test_y = torch.randint(classes, (n,), generator=g), torch.randint(classes, (m,), generator=g)
    middles = torch.randn(classes, dim, generator=g, dtype=torch.float64)
    x, test_x = (middles[z] + torch.randn(len(z), dim, generator=g, dtype=torch.float64) for z in (y, test_y))
    return x.to(dtype), y, test_x.to(dtype), test_y


def _normalised(x):
    return x / np.sqrt((x**2).sum(1, keepdims=True))


def _slow_fit(x, y, plain, start, batches, settings):
    """From the text, in NumPy: W [C, D] and b [C] after SGD with momentum; ``batches`` is (epoch, rows) in order."""
    plain = _normalised(plain)
    x = (_normalised(x) - plain.mean(0)) / np.sqrt(plain.var(0, ddof=1) + settings.eps)
    parameters, speeds = [each.copy() for each in start], [0.0, 0.0]
    for epoch, rows in batches:
        lr = settings.lr * settings.drop ** sum(epoch >= at for at in settings.milestones)
        logits = x[rows] @ parameters[0].T + parameters[1]
        chances = np.exp(logits - logits.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
        chances[np.arange(len(rows)), y[rows]] -= 1
        for i, gradient in enumerate((chances.T @ x[rows] / len(rows), chances.mean(0))):
            speeds[i] = settings.momentum * speeds[i] + gradient + settings.weight_decay * parameters[i]
            parameters[i] = parameters[i] - lr * speeds[i]
    return parameters


def _start(x, y, settings):
    """The classifier before the first step: a step of no length."""
    still = LinearSettings(seed=settings.seed, epochs=1, lr=1e-300)
    layer = fit_linear(x, y, classes=4, settings=still)[0][1]
    return [each.detach().numpy() for each in (layer.weight, layer.bias)]


@pytest.mark.parametrize("batch", [50, 16])
def test_training_equals_sgd_written_out(batch):
    x, y, _, _ = _drawn()
    settings = LinearSettings(epochs=7, milestones=(3, 5), batch=batch, lr=0.3, weight_decay=0.01, seed=3)
    start = _start(x, y, settings)
    g = torch.Generator().manual_seed(3)
    for each in start:
        torch.empty(each.shape, dtype=torch.float64).uniform_(generator=g)  # what the start draws
    batches = []
    for epoch in range(7):
        order = torch.randperm(50, generator=g)
        torch.randint(1, (50,), generator=g)  # which view: there is one
        batches += [(epoch, part.numpy()) for part in order.split(batch)]
    weight, bias = _slow_fit(x.numpy(), y.numpy(), x.numpy(), start, batches, settings)
    layer = fit_linear(x, y, classes=4, settings=settings)[0][1]
    np.testing.assert_allclose(layer.weight.detach().numpy(), weight, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(layer.bias.detach().numpy(), bias, rtol=1e-9, atol=1e-12)


def test_the_start_is_uniform_within_one_over_the_root_of_the_width():
    x, y, _, _ = _drawn(dim=400, n=60)
    weight, bias = _start(x, y, LinearSettings())
    for each in (weight, bias):
        assert np.abs(each).max() <= 0.05
    assert weight.std() == pytest.approx(0.05 / np.sqrt(3), rel=0.05)


def test_views_are_drawn_anew_in_each_epoch_and_every_image_is_seen_once():
    x, y, _, _ = _drawn()
    views = torch.stack([x, x + 1, x - 2])
    settings = LinearSettings(epochs=4, batch=50, lr=0.3, seed=1)
    start = _start(x, y, settings)
    g = torch.Generator().manual_seed(1)
    for each in start:
        torch.empty(each.shape, dtype=torch.float64).uniform_(generator=g)
    flat, chosen, drawn = views.reshape(-1, 6).numpy(), [], []
    for epoch in range(4):
        order, which = torch.randperm(50, generator=g), torch.randint(3, (50,), generator=g)
        chosen.append((epoch, (which * 50 + order).numpy()))
        drawn.append(torch.empty(50, dtype=torch.long).index_copy_(0, order, which))
    assert len({tuple(each.tolist()) for each in drawn}) == 4
    weight, _ = _slow_fit(flat, y.repeat(3).numpy(), flat, start, chosen, settings)
    layer = fit_linear(views, y, classes=4, settings=settings)[0][1]
    np.testing.assert_allclose(layer.weight.detach().numpy(), weight, rtol=1e-9, atol=1e-12)


def test_equal_views_are_no_views():
    x, y, test_x, test_y = _drawn()
    settings = LinearSettings(epochs=3, batch=16)
    one = linear_evaluation(x, y, test_x, test_y, settings=settings)
    three = linear_evaluation(x.repeat(3, 1, 1), y, test_x, test_y, settings=settings, plain_x=x)
    assert torch.equal(one.classifier[1].weight, three.classifier[1].weight)
    assert (one.top1, one.losses) == (three.top1, three.losses)


def test_mean_and_variance_are_those_of_the_plain_features():
    x, y, _, _ = _drawn()
    settings = LinearSettings(epochs=1, eps=1e-3)
    standardise = fit_linear(x, y, classes=4, settings=settings, plain_x=x[:20] * 3 + 1)[0][0]
    plain = _normalised(x[:20].numpy() * 3 + 1)
    np.testing.assert_allclose(standardise.mean.numpy(), plain.mean(0), atol=1e-12)
    np.testing.assert_allclose(standardise.inverse_std.numpy(), 1 / np.sqrt(plain.var(0, ddof=1) + 1e-3), rtol=1e-9)


def test_standardised_features_have_mean_zero_and_variance_one_and_a_constant_dimension_is_zero():
    x = _drawn(n=9000)[0].float()
    x = x / x.norm(dim=1, keepdim=True)
    got = Standardise(x, eps=1e-12)(x)
    torch.testing.assert_close(got.mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(got.var(0), torch.ones(6), atol=1e-4, rtol=0)
    flat = torch.tensor([[3.0, 4.0], [3.0, -4.0], [3.0, 4.0]])
    assert Standardise(flat, eps=1e-5)(flat)[:, 0].abs().max() < 1e-4


def test_the_length_of_features_does_not_matter():
    x, y, test_x, test_y = _drawn()
    settings = LinearSettings(epochs=5, batch=16)
    one = linear_evaluation(x, y, test_x, test_y, settings=settings)
    lengths = torch.rand(50, 1, generator=torch.Generator().manual_seed(5), dtype=x.dtype) + 0.1
    other = linear_evaluation(x * lengths, y, test_x * 40, test_y, settings=settings)
    torch.testing.assert_close(one.classifier[1].weight, other.classifier[1].weight)
    assert one.top1 == other.top1


def test_features_that_name_the_class_give_all_right_and_top_5_of_few_classes_is_all():
    labels = torch.arange(4).repeat(25)
    x = torch.nn.functional.one_hot(labels).float()
    found = linear_evaluation(x, labels, x * 2, labels, settings=LinearSettings())
    assert found.top1 == found.top5 == 100.0
    assert found.losses[-1] < found.losses[0]


def test_equal_seeds_give_equal_results_others_do_not_and_torchs_own_state_is_left_alone():
    x, y, test_x, test_y = _drawn(dtype=torch.float32)
    before = torch.get_rng_state()
    weights = [
        linear_evaluation(x, y, test_x, test_y, settings=LinearSettings(epochs=2, seed=seed)).classifier[1].weight
        for seed in (0, 0, 1)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_the_classifier_takes_raw_features_and_digits_are_told_apart():
    data = load_digits()
    x, y = torch.from_numpy(data.data).float(), torch.from_numpy(data.target)
    found = linear_evaluation(x[:1200], y[:1200], x[1200:], y[1200:], settings=LinearSettings())
    own = 100 * (found.classifier(x[1200:]).argmax(1) == y[1200:]).double().mean().item()
    assert found.top1 == pytest.approx(own)
    assert 88 < found.top1 < found.top5 <= 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_y": torch.full((50,), 9), "classes": 4}, "training labels reach from 9 to 9"),
        ({"test_y": torch.full((30,), 9)}, "test labels reach from 9 to 9"),
        ({"train_x": torch.full((50, 6), float("nan"))}, "50 of 50 training features are not finite"),
        ({"train_x": torch.zeros(3, 40, 6)}, "do not go with"),
        ({"train_x": torch.zeros(50)}, "have shape"),
        ({"plain_x": torch.zeros(10, 5)}, "give no mean and variance"),
        ({"train_x": torch.ones(1, 6), "train_y": torch.tensor([0]), "classes": 4}, "give no mean and variance"),
        ({"settings": LinearSettings(lr=1e30, epochs=3)}, "smaller learning rate"),
    ],
)
def test_bad_input_is_told_in_one_sentence(change, message):
    x, y, test_x, test_y = _drawn(dtype=torch.float32)
    given = {"train_x": x, "train_y": y, "test_x": test_x, "test_y": test_y, "settings": LinearSettings(epochs=1)}
    with pytest.raises(EffbookError, match=message):
        linear_evaluation(**(given | change))


def test_settings_that_cannot_train_are_refused():
    for wrong in ({"epochs": 0}, {"batch": 0}, {"lr": 0.0}, {"eps": 0.0}):
        with pytest.raises(EffbookError, match="above zero"):
            LinearSettings(**wrong)
