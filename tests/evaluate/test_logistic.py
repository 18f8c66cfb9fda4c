import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from effbook.errors import EffbookError
from effbook.evaluate.logistic import LogisticSettings, fit_logistic


def _drawn(n=120, classes=4, dim=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=g)
    middles = torch.randn(classes, dim, generator=g, dtype=torch.float64)
    return middles[y] + torch.randn(n, dim, generator=g, dtype=torch.float64), y


EXACT = {"tolerance_grad": 1e-9, "tolerance_change": 1e-16}


def _chances(logits):
    each = np.exp(logits - logits.max(1, keepdims=True))
    return each / each.sum(1, keepdims=True)


@pytest.mark.parametrize("weight_decay", [1e-3, 0.1])
def test_the_fit_is_scikit_learns(weight_decay):
    x, y = _drawn()
    layer = fit_logistic(x, y, classes=4, settings=LogisticSettings(weight_decay=weight_decay, **EXACT))
    peer = LogisticRegression(C=1 / (len(x) * weight_decay), tol=1e-10, max_iter=10_000).fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(layer.weight.numpy(), peer.coef_, atol=1e-6)
    np.testing.assert_allclose((layer.bias - layer.bias.mean()).numpy(), peer.intercept_, atol=1e-6)


def test_it_is_scikit_learns_on_digits_too():
    data = load_digits()
    x, y = torch.from_numpy(data.data / 16), torch.from_numpy(data.target)
    layer = fit_logistic(x[:300], y[:300], classes=10, settings=LogisticSettings(weight_decay=1e-2, **EXACT))
    peer = LogisticRegression(C=1 / 3, tol=1e-9, max_iter=10_000).fit(x[:300].numpy(), y[:300].numpy())
    np.testing.assert_allclose(_chances(layer(x[300:]).numpy()), peer.predict_proba(x[300:].numpy()), atol=1e-6)


def test_the_gradient_written_out_is_zero_where_it_ends():
    x, y = _drawn()
    layer = fit_logistic(x, y, classes=4, settings=LogisticSettings(weight_decay=0.02, **EXACT))
    off = _chances(x.numpy() @ layer.weight.numpy().T + layer.bias.numpy()) - np.eye(4)[y.numpy()]
    np.testing.assert_allclose(off.T @ x.numpy() / len(x) + 0.02 * layer.weight.numpy(), 0, atol=1e-8)
    np.testing.assert_allclose(off.mean(0), 0, atol=1e-8)


def test_one_step_of_one_call_is_a_step_of_gradient_descent():
    x, y = _drawn()
    layer = fit_logistic(x, y, classes=4, settings=LogisticSettings(iterations=1, max_iter=1, lr=0.5))
    off = np.full((len(x), 4), 0.25) - np.eye(4)[y.numpy()]
    gradient, bias = off.T @ x.numpy() / len(x), off.mean(0)
    length = 0.5 * min(1, 1 / (np.abs(gradient).sum() + np.abs(bias).sum()))
    np.testing.assert_allclose(layer.weight.numpy(), -length * gradient, atol=1e-12)
    np.testing.assert_allclose(layer.bias.numpy(), -length * bias, atol=1e-12)


def test_a_huge_weight_decay_leaves_the_shares_of_the_classes():
    x, y = _drawn()
    layer = fit_logistic(x, y, classes=4, settings=LogisticSettings(weight_decay=1e4, lr=0.5, iterations=1000))
    shares = torch.bincount(y) / len(y)
    chances = torch.softmax(layer(x), dim=1)
    torch.testing.assert_close(chances, shares.double().expand_as(chances), atol=1e-3, rtol=0)


def test_features_that_name_the_class_are_never_wrong_and_a_class_without_images_is_never_named():
    labels = torch.arange(4).repeat(25)
    x = torch.nn.functional.one_hot(labels, 6).float()
    predicted = fit_logistic(x, labels, classes=6, settings=LogisticSettings())(x).argmax(1)
    assert torch.equal(predicted, labels)


def test_a_fit_that_runs_away_ends_with_finite_weights():
    x, y = _drawn()
    layer = fit_logistic(x.float() * 1e25, y, classes=4, settings=LogisticSettings(iterations=5))
    assert all(torch.isfinite(each).all() for each in layer.parameters())


def test_a_fit_repeats_itself_takes_float32_and_leaves_torchs_own_state_alone():
    x, y = _drawn()
    before = torch.get_rng_state()
    one, two = (fit_logistic(x.float(), y, classes=4, settings=LogisticSettings()) for _ in range(2))
    assert one.weight.dtype == torch.float32
    assert torch.equal(one.weight, two.weight)
    assert not one.weight.requires_grad
    assert torch.equal(torch.get_rng_state(), before)


def test_bad_input_is_told_in_one_sentence():
    x, y = _drawn()
    with pytest.raises(EffbookError, match="not finite"):
        fit_logistic(x / 0, y, classes=4, settings=LogisticSettings())
    with pytest.raises(EffbookError, match="outside 0 to 2"):
        fit_logistic(x, y, classes=3, settings=LogisticSettings())
    for wrong in ({"iterations": 0}, {"lr": 0.0}, {"weight_decay": -1.0}, {"history_size": 0}):
        with pytest.raises(EffbookError, match="cannot be fitted"):
            LogisticSettings(**wrong)
