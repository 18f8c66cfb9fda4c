import math

import pytest
import torch

from effbook.cmsf.paws import PAWSSettings, draw_support, paws, sharpened, soft_labels
from effbook.errors import EffbookError


def slow(views, support, labels, settings):
    """PAWS for one sample, one class at a time."""
    classes = sorted(set(labels.tolist()))
    n = len(classes)

    def cosine(a, b):
        return (a * b).sum() / ((a * a).sum().sqrt() * (b * b).sum().sqrt())

    def predict(z):
        near = [torch.exp(cosine(z, s) / settings.temperature) for s in support]
        y = [[settings.smoothing / n + (1 - settings.smoothing) * (int(c) == k) for k in classes] for c in labels]
        return [sum(w * row[k] for w, row in zip(near, y, strict=True)) / sum(near) for k in range(n)]

    def sharpen(p):
        powers = [x ** (1 / settings.sharpening) for x in p]
        return [x / sum(powers) for x in powers]

    p = [[predict(z) for z in view] for view in views]
    s = [[sharpen(one) for one in view] for view in p]
    total, pairs = 0, 0
    for v in range(len(views)):
        for b in range(len(views[v])):
            for k in range(n):
                one, two = s[0][b][k].detach(), s[1][b][k].detach()
                target = two if v == 0 else one if v == 1 else (one + two) / 2
                total = total - target * torch.log(p[v][b][k])
            pairs += 1
    every = [one for view in s for one in view]
    mean = [sum(one[k] for one in every) / len(every) for k in range(n)]
    return total / pairs + settings.spread * sum(m * torch.log(m) for m in mean)


def numbers(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("crops", [0, 2])
def test_the_loss_and_its_gradients_are_those_of_the_text(crops):
    settings = PAWSSettings()
    views, support = [numbers(3, 5, seed=i) for i in range(2 + crops)], numbers(6, 5, seed=9)
    labels = torch.tensor([4, 0, 4, 7, 0, 7])
    fast, twin = paws(views, support, labels, settings=settings), slow(views, support, labels, settings)
    assert torch.allclose(fast, twin, rtol=1e-10)
    inputs = [*views, support]
    for a, b in zip(torch.autograd.grad(fast, inputs), torch.autograd.grad(twin, inputs), strict=True):
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-12)
        assert a.abs().max() > 0


def test_a_support_of_one_sample_a_class_and_no_smoothing_gives_a_softmax_over_the_support():
    z, support = numbers(4, 5, seed=0), numbers(3, 5, seed=1)
    p = soft_labels(z, support, torch.eye(3, dtype=torch.float64), temperature=0.1)
    cosines = torch.nn.functional.cosine_similarity(z[:, None], support[None], dim=2)
    assert torch.allclose(p, (cosines / 0.1).softmax(1))


def test_equal_views_that_are_sure_of_all_classes_alike_reach_the_least_loss():
    support = torch.eye(4, dtype=torch.float64)
    settings = PAWSSettings(smoothing=0.0, temperature=0.01)
    loss = paws([support, support], support, torch.arange(4), settings=settings)
    assert loss.item() == pytest.approx(-math.log(4), abs=1e-6)
    collapsed = support[:1].expand(4, -1)
    assert paws([collapsed, collapsed], support, torch.arange(4), settings=settings) > loss + 1


def test_sharpening_by_one_changes_nothing_and_by_less_makes_it_surer():
    p = numbers(3, 5, seed=0).softmax(1)
    assert torch.allclose(sharpened(p, 1.0), p)
    assert (sharpened(p, 0.25).max(1).values > p.max(1).values).all()


def test_a_support_has_so_many_labelled_samples_of_so_many_classes():
    labels = torch.tensor([0, 0, 0, 1, 2, 2, -1, -1, 3, 3, 3, 3])
    seen = set()
    for seed in range(20):
        chosen = draw_support(labels, classes=2, per_class=2, generator=torch.Generator().manual_seed(seed))
        assert len(set(chosen.tolist())) == 4
        counts = torch.bincount(labels[chosen], minlength=4)
        assert sorted(counts.tolist()) == [0, 0, 2, 2]
        seen |= set(labels[chosen].tolist())
    assert seen == {0, 2, 3}
    with pytest.raises(EffbookError, match="only 3 classes"):
        draw_support(labels, classes=4, per_class=2, generator=torch.Generator())


@pytest.mark.parametrize("fields", [{"temperature": 0}, {"sharpening": 2}, {"smoothing": 1}, {"spread": -1}])
def test_impossible_settings_are_refused(fields):
    with pytest.raises(EffbookError):
        PAWSSettings(**fields)


def test_one_view_or_no_support_is_refused():
    z = torch.zeros(2, 3)
    with pytest.raises(EffbookError):
        paws([z], z, torch.arange(2), settings=PAWSSettings())
    with pytest.raises(EffbookError):
        paws([z, z], z[:0], torch.arange(0), settings=PAWSSettings())
