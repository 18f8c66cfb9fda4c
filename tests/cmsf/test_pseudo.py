import copy
import math

import pytest
import torch
from torch import nn

from effbook.cmsf.pseudo import (
    ClassifierSettings,
    FeatureCache,
    FinetuneSettings,
    NearestNeighbours,
    finetune,
    fit_classifier,
    new_head,
    predict,
)
from effbook.errors import EffbookError

KINDS = ["linear", "mlp2", "mlp3", "knn"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def clusters(count, classes=3, dim=8, noise=0.3, seed=0):
    g = seeded(seed)
    centres = torch.eye(dim)[:classes]
    labels = torch.arange(count) % classes
    return nn.functional.normalize(centres[labels] + noise * torch.randn(count, dim, generator=g), dim=1), labels


def test_a_cache_keeps_the_latest_feature_of_labelled_images_and_gives_out_filled_rows_only():
    labels = torch.tensor([-1, 2, 0, -1, 1, 2])
    cache = FeatureCache(labels, dim=2)
    assert len(cache.known()[1]) == 0
    cache.write(torch.tensor([0, 4, 1]), torch.tensor([[9.0, 9.0], [4.0, 4.0], [1.0, 1.0]]))
    features, known = cache.known()
    assert known.tolist() == [2, 1]
    assert features.tolist() == [[1.0, 1.0], [4.0, 4.0]]
    cache.write(torch.tensor([4]), torch.tensor([[5.0, 5.0]]))
    assert cache.known()[0].tolist() == [[1.0, 1.0], [5.0, 5.0]]


def test_an_offline_cache_is_an_online_one_that_saw_every_image():
    features, labels = clusters(10)
    labels = labels.where(torch.arange(10) % 3 > 0, -1)
    offline, online = FeatureCache(labels, dim=8), FeatureCache(labels, dim=8)
    offline.fill(lambda indices: features[indices], batch=3)
    for indices in torch.randperm(10, generator=seeded()).split(4):
        online.write(indices, features[indices])
    for a, b, c in zip(offline.known(), online.known(), (features[labels >= 0], labels[labels >= 0]), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_a_checkpoint_holds_the_cache():
    features, labels = clusters(6)
    cache, other = FeatureCache(labels, dim=8), FeatureCache(labels, dim=8)
    cache.write(torch.arange(4), features[:4])
    other.load_state_dict(cache.state_dict())
    assert torch.equal(other.known()[0], features[:4])
    with pytest.raises(EffbookError, match="no image has a label"):
        FeatureCache(torch.full((3,), -1), dim=2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_classifier_learns_classes_that_lie_apart(kind):
    settings = ClassifierSettings(kind=kind, hidden=32, batch=16, lr=0.1)
    fitted = fit_classifier(*clusters(120), classes=3, settings=settings, generator=seeded())
    features, labels = clusters(60, seed=1)
    found, confidence = predict(fitted, features, threshold=0.0)
    assert (found == labels).double().mean() > 0.9
    assert confidence.min() >= 1 / 3
    assert confidence.max() <= 1 + 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_a_threshold_of_0_labels_all_and_one_of_1_none(kind):
    settings = ClassifierSettings(kind=kind, hidden=8, epochs=1)
    fitted = fit_classifier(*clusters(30), classes=3, settings=settings, generator=seeded())
    features, _ = clusters(40, noise=2.0, seed=2)
    assert (predict(fitted, features, threshold=0.0)[0] >= 0).all()
    if kind != "knn":
        assert (predict(fitted, features, threshold=1.0)[0] == -1).all()
    found, confidence = predict(fitted, features, threshold=0.5)
    assert torch.equal(found >= 0, confidence > 0.5)
    with pytest.raises(EffbookError):
        predict(fitted, features, threshold=1.5)


def test_training_is_plain_sgd_over_whole_batches():
    features, labels = clusters(11)
    features, settings = features.double(), ClassifierSettings(kind="linear", batch=4, epochs=3)
    fitted = fit_classifier(features, labels, classes=3, settings=settings, generator=seeded(7))

    g = seeded(7)
    start = new_head("linear", 8, 3, generator=g).double()[0]
    w = torch.cat((start.weight, start.bias[:, None]), 1).detach()  # [C, D + 1]
    x, velocity = torch.cat((features, torch.ones(11, 1)), 1), torch.zeros_like(w)
    for _ in range(3):
        order = torch.randperm(11, generator=g)
        for chosen in (order[:4], order[4:8]):  # the last three are no whole batch
            p = (x[chosen] @ w.T).softmax(1)
            p[torch.arange(4), labels[chosen]] -= 1
            velocity = 0.9 * velocity + p.T @ x[chosen] / 4 + 1e-4 * w
            w = w - 0.01 * velocity
    assert torch.allclose(torch.cat((fitted[0].weight, fitted[0].bias[:, None]), 1), w, rtol=1e-10)


def test_a_classifier_comes_from_its_generator_alone():
    settings, state = ClassifierSettings(hidden=8), torch.get_rng_state()
    one, again = (fit_classifier(*clusters(30), classes=3, settings=settings, generator=seeded(4)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))


def test_heads_have_the_printed_layers():
    widths = {
        kind: [tuple(m.weight.shape) for m in new_head(kind, 512, 10, generator=seeded()) if isinstance(m, nn.Linear)]
        for kind in ("linear", "mlp2", "mlp3")
    }
    assert widths == {
        "linear": [(10, 512)],
        "mlp2": [(1024, 512), (10, 1024)],
        "mlp3": [(1024, 512), (1024, 1024), (10, 1024)],
    }
    bound = new_head("linear", 512, 10, generator=seeded())[0].weight.abs().max()
    assert 0.99 / math.sqrt(512) < bound <= 1 / math.sqrt(512)


def test_nearest_neighbours_vote():
    features, labels = clusters(20)
    query, _ = clusters(5, noise=1.0, seed=3)
    shares = NearestNeighbours(features, labels, classes=3, k=7)(query).softmax(1)
    for one, share in zip(query, shares, strict=True):
        near = sorted(range(20), key=lambda j: -float(one @ features[j]))[:7]
        assert share.tolist() == pytest.approx([sum(int(labels[j]) == c for j in near) / 7 for c in range(3)])


@pytest.mark.parametrize(("count", "classes"), [(1, 3), (6, 2)])
def test_what_cannot_be_learnt_is_refused(count, classes):
    with pytest.raises(EffbookError):
        fit_classifier(*clusters(count), classes=classes, settings=ClassifierSettings(), generator=seeded())


@pytest.mark.parametrize(
    "fields", [{"kind": "svm"}, {"hidden": 0}, {"epochs": 0}, {"batch": 1}, {"lr": 0.0}, {"neighbours": 0}]
)
def test_impossible_settings_are_refused(fields):
    with pytest.raises(EffbookError):
        ClassifierSettings(**fields)


def tuned(labels, images, **fields):
    """Fine-tune a linear encoder; also the indices that each epoch trained on."""
    encoder = nn.utils.skip_init(nn.Linear, 8, 8)
    with torch.no_grad():
        encoder.weight.copy_(torch.eye(8))
        encoder.bias.zero_()
    seen = []

    def training(indices):
        seen.append(indices)
        return images[indices]

    settings = FinetuneSettings(**({"hidden": 16, "batch": 10, "lr": 0.1, "epochs": 6, "drop_epochs": (4,)} | fields))
    network, known = finetune(
        encoder,
        labels,
        dim=8,
        classes=3,
        settings=settings,
        generator=seeded(),
        training=training,
        plain=lambda indices: images[indices],
    )
    return network, known, seen


def test_fine_tuning_labels_confident_images_and_then_trains_on_them():
    images, truth = clusters(90, noise=0.15)
    labels = truth.where(torch.arange(90) < 30, -1)
    network, known, seen = tuned(labels, images, threshold=0.8)
    assert torch.equal(known[:30], truth[:30])
    labelled = known[30:] >= 0
    assert labelled.any()
    assert (known[30:] == truth[30:])[labelled].double().mean() > 0.9
    first, second = torch.cat(seen[: 6 * 3]), torch.cat(seen[6 * 3 :])
    assert set(first.tolist()) == set(range(30))
    assert set(second.tolist()) <= set((known >= 0).nonzero()[:, 0].tolist())
    assert second.max() >= 30
    assert not network.training
    assert (network(images).argmax(1) == truth).double().mean() > 0.9


def test_one_round_or_no_confident_image_trains_on_the_given_labels_only():
    images, truth = clusters(60)
    labels = truth.where(torch.arange(60) < 20, -1)
    one, known, seen = tuned(labels, images, rounds=1)
    assert torch.equal(known, labels)
    assert len(seen) == 6 * 2
    two, known, _ = tuned(labels, images, threshold=1.0)
    assert torch.equal(known, labels)
    longer = copy.deepcopy(two)
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), longer.parameters(), strict=True))


def test_the_learning_rate_falls_to_a_tenth_after_the_given_epoch(monkeypatch):
    images, labels = clusters(20)
    rates, step = [], torch.optim.SGD.step

    def watched(self, *arguments, **named):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *arguments, **named)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    tuned(labels, images, rounds=1, epochs=20, drop_epochs=(15,), batch=20, lr=0.005)
    assert rates == pytest.approx([0.005] * 15 + [0.0005] * 5)


def test_fine_tuning_without_labels_is_refused():
    images, _ = clusters(10)
    with pytest.raises(EffbookError):
        tuned(torch.full((10,), -1), images)
    with pytest.raises(EffbookError):
        FinetuneSettings(rounds=3)
