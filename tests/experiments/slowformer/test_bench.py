"""The chapter's lines of the ledger: which there are, which way they are read, and the parts that need no clock."""

import pytest
import torch

from effbook import experiments
from effbook.errors import EffbookError
from effbook.exhibits import recipes_of
from effbook.experiments.slowformer import bench, victims
from effbook.runs import bench as ledger
from effbook.runs.bench import FromRecords, Ratio
from effbook.runs.profiles import scale
from effbook.runs.recipe import make

experiments.load()
AS_FAST = "its operations at the dense ViT's speed"


def lines(start="", end=""):
    return {
        one.name: one for one in ledger.benches("slowformer") if one.name.startswith(start) and one.name.endswith(end)
    }


@pytest.fixture
def recipe(monkeypatch, kept):
    """An attack on a toy ATS, on the CPU, whose victim the session's cache keeps."""
    monkeypatch.setattr(bench, "PROFILE", "smoke")
    monkeypatch.setattr(bench, "BATCH", 4)
    return scale(make("slowformer-attack", victim="ats"), "smoke")


class Recorded:
    """Stands for the records: values by metric and recipe, one a seed, in place of `mean_of`."""

    def __init__(self, values):
        self.values, self.asked = values, []

    def __call__(self, metric, recipes, profile):
        self.asked += recipes
        each = self.values(metric, recipes[0])
        assert profile == "mini"
        assert len({one.seed for one in recipes}) == len(recipes) == len(each)
        return FromRecords(sum(each) / len(each), tuple(one.key for one in recipes), each)


@pytest.fixture
def records(monkeypatch):
    """Sets what the records hold."""

    def hold(values):
        found = Recorded(values)
        monkeypatch.setattr(bench, "mean_of", found)
        return found

    return hold


# ------------------------------------------------------------------------------------------------ which lines there are


def test_every_figure_that_the_chapter_must_reach_has_a_line():
    figures = {name: one.threshold for name, one in lines().items()}
    for name, share, success in (
        ("A-ViT", "<= 0.70", ">= 80"),
        ("ATS", "<= 0.75", ">= 10"),
        ("AdaViT", "<= 0.75", ">= 18"),
    ):
        assert figures[f"accuracy without an attack: {name} / 70 %, mini"] == ">= 1"
        assert figures[f"accuracy without an attack: {name} - dense ViT, mini"] == ""
        assert figures[f"operations without an attack: {name} / dense ViT, mini"] == share
        assert figures[f"Attack Success: SlowFormer - no attack, {name}, mini"] == success
        assert figures[f"Attack Success: a random patch's distance from no attack, {name}, mini"] == "<= 6"
        by_clock = f"Attack Success: distance of that in milliseconds from that in FLOPs, {name}, mini"
        assert figures[by_clock] == "<= 15"
        assert figures[f"time: dropped, one image / {AS_FAST}, {name}"] == ""
        assert figures[f"time: masked, 32 images / the dense ViT, {name}"] == ""
    for name in ("A-ViT", "ATS"):
        both = [one.threshold for one in lines(f"time: dropped, 32 images / {AS_FAST}, {name}").values()]
        assert both == ["<= 1.1", ">= 0.9"]
    assert figures["Attack Success: SlowFormer made anew after the defence - no attack, A-ViT, mini"] == "<= 50"
    assert figures["accuracy without an attack: A-ViT before - after the defence, mini"] == "<= 6"
    assert figures["Attack Success: SlowFormer by Eq. 4.5 - no attack, ATS, mini"] == ""


# ------------------------------------------------------------------------------------------------ from records


def test_what_is_read_are_runs_of_the_register_three_of_each(records):
    found = records(lambda metric, recipe: (40.0, 50.0, 60.0))
    for name, line in lines(end=", mini").items():
        ratio = line.function()
        assert len(ratio.records) in (3, 6), name
    ours = set(recipes_of("slowformer", "mini"))
    assert found.asked
    assert set(found.asked) <= ours
    assert {one.seed for one in found.asked} == {0, 1, 2}


def test_each_line_compares_what_its_name_says(records):
    success = {"slowformer": (80.0, 90.0, 100.0), "random": (-9.0, 3.0, 3.0)}
    saved = {"avit": 0.6, "ats": 0.7, "adavit": 0.8, "dense": 1.0}

    def values(metric, recipe):
        if metric == "gflops":
            return (saved[recipe.victim],) * 3
        if recipe.name == "slowformer-defence":
            return {"success": (40.0, 50.0, 66.0), "original_top1": (74.0,) * 3, "clean_top1": (69.0,) * 3}[metric]
        if recipe.name == "slowformer-clock":
            return {"success_ms": (60.0, 100.0, 80.0), "success": (80.0,) * 3}[metric]
        if metric == "top1":
            return (77.0 if recipe.victim == "dense" else 73.5,) * 3
        assert metric == "success"
        if recipe.victim == "ats" and recipe.loss == "text":
            return (-2.0,) * 3
        return success[recipe.attack]

    records(values)

    def told(name):
        line = lines()[f"{name}, mini"]
        ratio = line.function()
        return pytest.approx(ratio.value), pytest.approx(ratio.a), pytest.approx(ratio.b), line.reached(ratio.value)

    assert told("accuracy without an attack: ATS - dense ViT") == (-3.5, 73.5, 77.0, None)
    assert told("accuracy without an attack: ATS / 70 %") == (1.05, 73.5, 70.0, True)
    assert told("operations without an attack: A-ViT / dense ViT") == (0.6, 0.6, 1.0, True)
    assert told("operations without an attack: AdaViT / dense ViT") == (0.8, 0.8, 1.0, False)
    assert told("Attack Success: SlowFormer - no attack, A-ViT") == (90.0, 90.0, 0.0, True)
    assert told("Attack Success: SlowFormer by Eq. 4.5 - no attack, ATS") == (-2.0, -2.0, 0.0, None)
    assert told("Attack Success: a random patch's distance from no attack, ATS") == (5.0, -1.0, 0.0, True)
    clock = "Attack Success: distance of that in milliseconds from that in FLOPs, A-ViT"
    assert told(clock) == (40 / 3, 80.0, 80.0, True)  # the seeds lie on either side and do not make up for each other
    anew = "Attack Success: SlowFormer made anew after the defence - no attack, A-ViT"
    assert told(anew) == (52.0, 52.0, 0.0, False)
    assert told("accuracy without an attack: A-ViT before - after the defence") == (5.0, 74.0, 69.0, True)


def test_a_random_patch_that_saves_too_much_misses_its_figure_as_one_that_costs_too_much_does(records):
    line = lines()["Attack Success: a random patch's distance from no attack, A-ViT, mini"]
    for each, reached in (((-6.5,) * 3, False), ((6.5,) * 3, False), ((-5.5,) * 3, True), ((-8.0, 8.0, 8.0), False)):
        records(lambda metric, recipe, each=each: each)
        found = line.function()
        assert line.reached(found.value) is reached, each
        assert found.low <= found.value <= found.high


def test_the_attack_is_the_profiles_own_and_not_that_of_eq_45(records):
    found = records(lambda metric, recipe: (1.0, 2.0, 3.0))
    lines()["Attack Success: SlowFormer - no attack, ATS, mini"].function()
    lines()["Attack Success: SlowFormer by Eq. 4.5 - no attack, ATS, mini"].function()
    assert [(one.victim, one.attack, one.loss) for one in found.asked[::3]] == [
        ("ats", "slowformer", "surrogate"),
        ("ats", "slowformer", "text"),
    ]


def test_a_line_whose_records_are_missing_says_what_to_run(folders):
    for line in lines(end=", mini").values():
        with pytest.raises(EffbookError, match=r"not every slowformer-\w+ of mini is recorded yet; run `effbook run"):
            line.function()


# ------------------------------------------------------------------------------------------------ measured now


def test_dropped_is_held_against_the_time_that_its_operations_would_take(monkeypatch, recipe):
    found = Ratio(value=0.7, low=0.6, high=0.8, a=70.0, b=100.0, unit="ms", pairs=5)
    monkeypatch.setattr(bench, "run_beside_dense", lambda *_: (found, 0.5))
    ratio = bench.dropped_beside_operations(recipe, 4)
    assert [ratio.value, ratio.low, ratio.high] == pytest.approx([1.4, 1.2, 1.6])
    assert (ratio.a, ratio.b, ratio.unit) == (70.0, 50.0, "ms")


@pytest.mark.parametrize("victim", ["avit", "ats", "adavit"])
def test_victim_and_dense_vit_run_on_the_same_images_and_are_measured_once(monkeypatch, kept, recipe, victim):
    weights = {"weights": "trained"} if victim == "adavit" else {}
    recipe = scale(make("slowformer-attack", victim=victim, **weights), "smoke")
    model = bench.victim_of(recipe)
    assert type(model) is type(victims.kept_victim(recipe, kept))
    run, seen = type(model).run, []

    def watched(self, images, execution="dropped", **other):
        seen.append((len(images), execution))
        return run(self, images, execution, **other)

    monkeypatch.setattr(type(model), "run", watched)
    dropped, share = bench.run_beside_dense(recipe, "dropped", 3, 2)
    assert set(seen) == {(3, "dropped")}
    count = len(seen)
    assert bench.run_beside_dense(recipe, "dropped", 3, 2) == (dropped, share)
    assert len(seen) == count
    masked, same = bench.run_beside_dense(recipe, "masked", 3, 2)
    assert seen[-1] == (3, "masked")
    assert same == pytest.approx(share)
    assert 0 < share <= 1.05  # AdaViT's decisions cost a little themselves
    assert dropped.pairs == masked.pairs == 2
    assert min(dropped.a, dropped.b, masked.a) > 0


def test_the_plain_forward_answers_as_the_dense_victim(recipe):
    victim = bench.victim_of(recipe)
    images = bench.images_of(recipe, "test", 4) / 255
    plain = bench.dense_forward(victim, images)()
    assert torch.allclose(plain, victims.dense_of(victim).run(images, "dropped").logits, atol=1e-5)
    assert not torch.allclose(plain, victim.run(images, "dropped").logits, atol=1e-5)
    assert bench.packed_beside_plain(recipe, repeats=2).pairs == 2


def test_a_step_of_the_attack_is_timed_beside_the_victim_alone_on_as_many_images(monkeypatch, recipe):
    victim = bench.victim_of(recipe)
    surrogate, seen = victim.surrogate, []

    def watched(images):
        seen.append((len(images), images.requires_grad))
        return surrogate(images)

    monkeypatch.setattr(victim, "surrogate", watched)
    clock = iter(range(1000))
    monkeypatch.setattr(bench, "now", lambda: next(clock) / 1000)
    found = bench.step_beside_victim(recipe, steps=3)
    assert found.pairs == 3
    assert (found.a, found.b) == pytest.approx((1.0, 1.0))  # one tick each: neither holds the other
    assert found.unit == "ms"
    assert seen == [(recipe.attack_batch, True)] * 2 * (3 + bench.WARM_UP)
