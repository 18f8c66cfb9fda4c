"""The chapter's lines of the ledger: which there are, and the parts that need no clock."""

import dataclasses

import pytest
import torch

from effbook import experiments
from effbook.exhibits import recipes_of
from effbook.experiments.simreg import bench
from effbook.experiments.simreg.settings import Distillation
from effbook.runs import bench as ledger
from effbook.runs.bench import FromRecords
from effbook.runs.profiles import scale
from effbook.runs.recipe import make

experiments.load()


@pytest.fixture
def recipe(monkeypatch):
    """A distillation of three steps an epoch, on the CPU."""
    monkeypatch.setattr(bench, "STEPS", 3)
    monkeypatch.setattr(bench, "device", lambda: torch.device("cpu"))
    return scale(make("simreg-distill", head="2L"), "smoke")


def test_every_figure_that_the_chapter_must_reach_has_a_line():
    lines = {one.name: one.threshold for one in ledger.benches("simreg")}
    for pair in ("MobileNet-V2 at 64 px -> small-wide", "ViT-S/14 at 56 px -> small"):
        assert lines[f"epoch: teacher asked / features cached, {pair}"] == ">= 1.8"
        assert lines[f"teacher's forward / student's step, {pair}"] == ">= 2.4"
    assert [figure for name, figure in lines.items() if name.startswith("largest difference")] == ["<= 0.00001"] * 2
    after = [figure for name, figure in lines.items() if "exported" in name]
    assert after == ["<= 0", "<= 0", "<= 1.05"]
    ahead = [figure for name, figure in lines.items() if "backbone - head's output" in name]
    assert ahead == [bench.AHEAD] * 6
    assert [figure for name, figure in lines.items() if "with linear" in name] == [""] * 3


def test_the_pairs_are_all_that_the_register_distils_and_are_named_as_what_they_are():
    def pair(one):
        own = {"own-msf", "own-byol", "own-cmsf"}
        return tuple(sorted("own" if name in own else name for name in one.teachers)), one.student, one.view_px

    known = {name: pair(bench.at_mini("simreg-distill", **fields)) for name, fields in bench.PAIRS.items()}
    assert known == {
        "small at 24 px -> small-half": (("own",), "small-half", 24),
        "small at 24 px -> small-wide": (("own",), "small-wide", 24),
        "small at 24 px -> small": (("own",), "small", 24),
        "three small at 24 px -> small-half": (("own",) * 3, "small-half", 24),
        "MobileNet-V2 at 64 px -> small-wide": (("mobilenet-v2",), "small-wide", 24),
        "ViT-S/14 at 56 px -> small": (("vit-s14",), "small", 24),
    }
    used = {pair(one) for one in recipes_of("simreg", "mini") if isinstance(one, Distillation)}
    assert used - {(("own",) * 2, "small-half", 24)} == set(known.values())
    own = bench.at_mini("simreg-distill").taught()["own-msf"]
    assert own.encoder == "small"


@pytest.mark.parametrize("teachers", [("own-msf",), ("own-msf", "own-byol")])
def test_the_sides_have_one_course_and_only_one_asks_its_teachers(recipe, teachers, tmp_path):
    recipe = dataclasses.replace(recipe, teachers=teachers, taught_as=())
    asked, cached = bench.Side(recipe), bench.Side(recipe, tmp_path)
    calls = {"asked": 0, "cached": 0}
    for name, side in (("asked", asked), ("cached", cached)):
        for network in side.teachers.networks:
            network.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
        side.epoch()
    assert calls == {"asked": 3 * len(teachers), "cached": 0}
    assert asked.losses == cached.losses
    assert len(asked.losses) == 3
    first = asked.losses
    asked.epoch()
    assert asked.losses != first  # it goes on


def test_a_side_that_saw_other_features_would_be_told_apart(recipe, monkeypatch):
    assert bench.losses_apart(recipe).value == 0
    from effbook.simreg.views import DistillViews

    use = DistillViews.use
    monkeypatch.setattr(DistillViews, "use", lambda self, given: use(self, [given[0] + 0.1]))
    found = bench.losses_apart(recipe)
    assert found.value == abs(found.a - found.b) > 1e-4


def test_the_books_own_teachers_are_of_the_form_that_is_trained():
    from effbook.experiments.cmsf.inputs import new_encoder

    recipe = bench.at_mini("simreg-distill", teachers=("byol",))
    ours, trained = bench.new_teacher(recipe, "own-byol"), new_encoder(recipe.taught()["own-byol"])
    assert repr(ours) == repr(trained)
    shapes = [{name: value.shape for name, value in network.state_dict().items()} for network in (ours, trained)]
    assert shapes[0] == shapes[1]
    assert not ours.training


def test_times_are_of_both_sides(recipe):
    epoch, forward = bench.asked_beside_cached(recipe, repeats=2), bench.teacher_beside_step(recipe, repeats=2)
    assert epoch.a > 0 < epoch.b
    assert (epoch.pairs, forward.pairs, epoch.unit, epoch.sign) == (2, 2, "ms", "/")


def test_the_exported_student_is_counted_as_the_plain_backbone_and_a_kept_head_would_show(recipe):
    student, plain = bench.exported(recipe)
    assert any(not torch.equal(*pair) for pair in zip(student.parameters(), plain.parameters(), strict=True))
    assert bench.parameters_beside_plain(recipe).value == 0
    assert bench.flops_beside_plain(recipe).value == 0
    whole = bench.Side(recipe).method.student
    assert bench.parameters(whole) > bench.parameters(plain)
    assert bench.flops(whole.eval(), 28) > bench.flops(plain, 28)
    assert bench.latency_beside_plain(recipe, repeats=2).pairs == 2


def test_accuracies_are_differences_of_what_the_registers_recipes_recorded(monkeypatch):
    asked = []

    def mean_of(metric, recipes, profile):
        asked.extend(recipes)
        one = recipes[0]
        value = {"nn1": 30.0, "nn20": 35.0, "top1": 40.0}[metric]
        value -= {"backbone": 0, "head": 2.0}[one.layer] + (0.5 if one.head == "linear" else 0)
        return FromRecords(value, tuple(recipe.key for recipe in recipes))

    monkeypatch.setattr(bench, "mean_of", mean_of)
    lines = [one for one in ledger.benches("simreg") if "accuracy" in one.name]
    found = [one.function() for one in lines]
    assert [one.value for one in found] == [2.0] * 6 + [0.5] * 3
    assert [(one.a, one.b) for one in found[:3]] == [(30.0, 28.0), (35.0, 33.0), (40.0, 38.0)]
    assert all(len(one.records) == 6 for one in found)  # three seeds on both sides
    assert [line.reached(one.value) for line, one in zip(lines, found, strict=True)] == [True] * 6 + [None] * 3
    assert not lines[0].reached(0.0)
    assert lines[0].reached(100 / 15_000)  # one image of all three seeds
    assert set(asked) <= set(recipes_of("simreg", "mini"))
