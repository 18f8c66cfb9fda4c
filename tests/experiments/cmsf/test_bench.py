"""The chapter's lines of the ledger: which there are, and the parts that need no clock."""

import pytest
import torch
import torch.nn.functional as F

from effbook import experiments
from effbook.exhibits import recipes_of
from effbook.experiments.cmsf import bench
from effbook.runs import bench as ledger
from effbook.runs.bench import FromRecords
from effbook.training.bank import Bank

experiments.load()


def test_every_figure_that_the_chapter_must_reach_has_a_line():
    lines = {one.name: one.threshold for one in ledger.benches("cmsf")}
    assert lines["step: CMSF_self / BYOL-asym"] == "<= 1.04"
    assert lines["step: MSF / BYOL-asym"] == "<= 1.02"
    assert [figure for name, figure in lines.items() if name.startswith("search in")] == ["<= 1.1"] * 4
    assert lines["search, loss and backward, M: released form / ours"] == ">= 2.5"
    assert lines["bytes on the training device: 1.28M images / 10,000"] == "<= 1"
    accuracies = [figure for name, figure in lines.items() if name.startswith("linear accuracy")]
    assert accuracies == [">= 4", ">= 6", ">= 1", ">= 2", ">= 2"]


@pytest.mark.parametrize(("name", "k"), [("M", 5), ("same label", 3), ("M'", 5)])
def test_the_released_form_gives_our_loss_and_gradient(name, k, monkeypatch):
    monkeypatch.setattr(bench, "CLASSES", 4)
    monkeypatch.setattr(bench, "device", lambda: torch.device("cpu"))
    bank = bench.full_bank(size=96, dim=6)
    bank.embeddings, bank.second = bank.embeddings.double(), bank.second.double()
    positions, draw = torch.arange(16, 24), torch.Generator().manual_seed(1)
    v = F.normalize(torch.randn(8, 6, generator=draw, dtype=torch.float64), dim=1).requires_grad_()
    ours, theirs = (loss(v, bank, positions, name, k) for loss in (bench.our_loss, bench.released_loss))
    torch.testing.assert_close(theirs, ours, rtol=1e-12, atol=0)
    gradients = (torch.autograd.grad(loss, v)[0] for loss in (ours, theirs))
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", bench.constraints(3))
def test_what_is_timed_searches_a_full_bank(name, monkeypatch):
    monkeypatch.setattr(bench, "device", lambda: torch.device("cpu"))
    monkeypatch.setattr(bench, "CLASSES", 4)
    bank = bench.full_bank(size=200, dim=8, labelled=0.5 if name == "pseudo-label" else 1.0)
    found = bench.constraints(3)[name](bank, torch.arange(64))
    assert bank.filled == 200
    assert bool(found.mask.all())
    assert torch.equal(found.positions[:, 0], torch.arange(64))
    assert bool((found.positions > 64).any())


def test_memory_is_counted_once_a_storage_and_finds_what_lies_deep():
    bank = Bank(10, 4, second_dim=4)
    numbers = 2 * 10 * 4 * 4 + 2 * 10 * 8 + 10  # M and M', index and label, known
    assert sum(bench.tensors_of(bank).values()) == numbers
    assert sum(bench.tensors_of([bank, {"again": bank.embeddings[2:3]}]).values()) == numbers
    weight = torch.nn.Linear(3, 2, bias=False)
    weight(torch.ones(1, 3)).sum().backward()
    assert sum(bench.tensors_of(weight).values()) == 2 * 24  # with the gradient


def test_the_device_holds_as_much_for_many_images_as_for_few(monkeypatch):
    monkeypatch.setattr(bench, "device", lambda: torch.device("cpu"))
    few, many = bench.memory(64), bench.memory(6_400)
    assert few[0] == many[0] > 0
    assert many[1] == 100 * few[1]


def test_accuracies_are_differences_of_what_the_registers_recipes_recorded(monkeypatch):
    asked = []

    def mean_of(metric, recipes, profile):
        asked.extend(recipes)
        one = recipes[0]
        right = {"xent": 68.0, "cmsf-sup": 66.0 if one.k else 67.0, "byol": 43.0, "none": 37.0}
        wrong = {"xent": 3.0, "cmsf-sup": 0.25 if one.k else 4.0}
        value = right.get(one.method, 40.0) - (wrong[one.method] if one.noise else 0)
        return FromRecords(value, tuple(recipe.key for recipe in recipes))

    monkeypatch.setattr(bench, "mean_of", mean_of)
    lines = [one for one in ledger.benches("cmsf") if one.name.startswith("linear accuracy")]
    found = [one.function() for one in lines]
    assert [one.value for one in found] == [6.0, 6.0, 0.0, 2.75, 3.75]
    assert [(one.a, one.b) for one in found[3:]] == [(3.0, 0.25), (4.0, 0.25)]
    assert [len(one.records) for one in found] == [6, 6, 6, 12, 12]
    assert [line.reached(one.value) for line, one in zip(lines, found, strict=True)] == [True, True, False, True, True]
    assert set(asked) <= set(recipes_of("cmsf", "mini"))


def test_the_floor_is_the_same_stem_and_the_same_images():
    byol, floor = (bench.at_mini("cmsf-linear", **fields) for fields in (bench.BYOL, bench.RANDOM))
    for name in ("dataset", "train_images", "test_images", "image_px", "encoder"):
        assert getattr(byol, name) == getattr(floor, name)
