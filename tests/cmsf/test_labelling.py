"""Pseudo-labels while mean shift trains: whose label goes into the bank, and fit with few labels."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from effbook import cmsf
from effbook.cmsf import ClassifierSettings, ConfidentPseudoLabel, PseudoLabels, SameLabel, fit
from effbook.errors import EffbookError
from effbook.training.views import Batch


def labeller(labels, threshold=0.75, **options):
    bank = SimpleNamespace(embeddings=torch.zeros(8, 4))
    method = SimpleNamespace(networks=None, bank=bank, constraint=ConfidentPseudoLabel(k=1, threshold=threshold))
    return PseudoLabels(method, labels, classes=2, **options)


def batch(index):
    index = torch.tensor(index)
    return Batch(index, (), torch.zeros(len(index), 0), torch.full_like(index, -1))


def test_the_truth_overrides_pseudo_labels_and_doubt_gives_none():
    u = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.25, 0.75]]).log()  # what the head takes for logits
    one = labeller(torch.tensor([1, -1, -1, -1, 0]), threshold=float(u[3].softmax(0).max()))
    assert one(batch([0, 1, 2, 3]), torch.zeros(4, 4)).tolist() == [1, -1, -1, -1]  # before there is a classifier
    one.cache.write = lambda index, features: None
    one.fitted = [nn.Identity()]
    assert one(batch([0, 1, 2, 3]), u).tolist() == [1, 0, -1, -1]
    assert one.scores(torch.tensor([1, 0, 1, 1, 0])) == pytest.approx(
        {"labels": 100.0, "confident_share": 100 / 3, "confident": 100.0}
    )


def test_a_confidence_at_the_threshold_is_not_above_it_here_and_in_fine_tuning():
    u = torch.tensor([[0.75, 0.25]]).log()
    threshold = float(u.softmax(1).max())
    one = labeller(torch.tensor([0, -1]), threshold=threshold)
    one.cache.write = lambda index, features: None
    one.fitted = [nn.Identity()]
    assert one(batch([1]), u).tolist() == cmsf.predict(nn.Identity(), u, threshold=threshold)[0].tolist() == [-1]


def test_the_guesses_of_an_epoch_without_a_reader_are_let_go():
    one = labeller(torch.tensor([0, 1, -1]), plain=lambda index: None)
    one.cache.fill = lambda *_, **__: None
    one.fitted = [nn.Identity()]
    for _ in range(3):
        for step in (1, 2, 3, 4):
            one(batch([2]), torch.tensor([[0.0, 3.0]]))
            one.after(SimpleNamespace(step=step, steps=4))
    assert len(one._guessed) == 4


def test_what_semi_supervised_training_needs_can_be_imported():
    for name in ("PseudoLabels", "FeatureCache", "fit_classifier", "predict", "finetune", "supcon", "proto_nw"):
        assert name in cmsf.__all__
    assert all(getattr(cmsf, name).__name__ for name in cmsf.__all__ if name not in ("Make", "Second"))


# ------------------------------------------------------------------------------- fit


def noisy(x, draw):
    return x + 0.05 * torch.randn(x.shape, generator=draw)


def encoder():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU())


def two_classes():
    truth = torch.arange(64) % 2
    draw = torch.Generator().manual_seed(1)
    return truth.view(-1, 1, 1, 1) + 0.1 * torch.randn(64, 3, 2, 2, generator=draw), truth


def options(**more):
    return {"batch": 16, "strong": noisy, "weak": noisy, "epochs": 4} | more


def test_fit_guesses_the_labels_that_are_missing(tmp_path):
    images, truth = two_classes()
    labels = truth.where(torch.arange(64) < 8, -1)
    seen = {}

    def watch(method, moment):
        seen[moment.epoch, moment.step] = (method.bank.index.clone(), method.bank.label.clone(), method.relabel.rounds)

    constraint = ConfidentPseudoLabel(k=3, threshold=0.6)
    more = options(constraint=constraint, labels=labels, classifier=ClassifierSettings(lr=0.1), watch=watch)
    _, history = fit(encoder(), images, **more)
    index, label, rounds = seen[3, 4]
    assert rounds == 8  # in the middle and at the end of each of four epochs
    assert torch.equal(label[index < 8], truth[index][index < 8])
    guessed = (index >= 8) & (label >= 0)
    assert guessed.sum() > 10
    assert (label == truth[index])[guessed].double().mean() > 0.7  # by chance 0.5
    path = tmp_path / "state.pt"

    def stop(method, moment):
        if moment.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(encoder(), images, checkpoint=path, **(more | {"watch": stop}))
    assert fit(encoder(), images, checkpoint=path, **more)[1] == history


def test_pseudo_labels_without_labels_are_refused():
    images, truth = two_classes()
    for more in (
        {"constraint": ConfidentPseudoLabel(k=3)},
        {"constraint": SameLabel(k=3), "labels": truth},
        {"constraint": ConfidentPseudoLabel(k=3), "labels": truth[:5]},
        {"constraint": ConfidentPseudoLabel(k=3), "labels": torch.full((64,), -1)},
    ):
        with pytest.raises(EffbookError, match=r"needs `labels`|do not go with 64 images|no image has a label"):
            fit(encoder(), images, **options(**more))
