"""What CompGS adds to training: straight-through gradients, codes that follow, the schedule, the penalty, pruning."""

import dataclasses

import pytest
import torch
from gaussians_twin import camera, scene

from effbook.compgs import Book, CompGSSettings, Quantiser, books, compress, fit
from effbook.compgs import kmeans as kmeans_module
from effbook.compgs.model import joined
from effbook.errors import EffbookError
from effbook.gaussians import train
from effbook.gaussians.config import DensitySettings, Rates, TrainSettings
from effbook.gaussians.densify import PullMeter
from effbook.gaussians.model import Gaussians
from effbook.gaussians.optimise import Adam
from effbook.gaussians.rasterise import render
from effbook.gaussians.train import State

FOUR = books(colour=6, covariance=8)
COVARIANCE = ("scales",)


def state(n=40, iteration=1):
    gaussians = scene(n).map(lambda t: t.float().requires_grad_())
    return State(gaussians=gaussians, adam=Adam(gaussians), meter=PullMeter(n), iteration=iteration)


def settings(**changes):
    return CompGSSettings(**{"books": FOUR, "start": 10, "interval": 5, "end": 20, "penalty": 0.0} | changes)


def test_before_the_start_the_scene_is_drawn_as_it_is():
    now = state(iteration=9)
    assert Quantiser(settings()).before(now) is now.gaussians


def test_what_is_drawn_has_only_as_many_values_as_codes():
    drawn = Quantiser(settings()).before(state(iteration=10))
    for book in FOUR:
        assert len(joined(drawn, book.parameters).unique(dim=0)) <= book.codes
    assert len(drawn.means.unique(dim=0)) == 40


def test_gradients_pass_as_if_nothing_had_been_replaced():
    now = state(iteration=10)
    drawn = Quantiser(settings()).before(now)
    weights = {name: torch.randn(t.shape) for name, t in drawn.tensors().items()}
    sum((t * weights[name]).sum() for name, t in drawn.tensors().items()).backward()
    for name, tensor in now.gaussians.tensors().items():
        assert torch.equal(tensor.grad, weights[name])


def test_a_codebook_of_as_many_codes_as_gaussians_changes_nothing():
    now = state(iteration=10)
    drawn = Quantiser(settings(books=books(colour=40, covariance=40))).before(now)
    for name, tensor in now.gaussians.tensors().items():
        torch.testing.assert_close(getattr(drawn, name), tensor, rtol=1e-6, atol=1e-6)


def test_codes_follow_their_members_each_iteration_and_assignments_wait(monkeypatch):
    calls = []
    assign = kmeans_module.assign
    monkeypatch.setattr(kmeans_module, "assign", lambda *a, **k: calls.append(1) or assign(*a, **k))
    now, quantiser = state(), Quantiser(settings(books=(Book(COVARIANCE, 8),)))
    asked = {}
    for iteration in range(10, 31):
        now.iteration, before = iteration, len(calls)
        with torch.no_grad():
            now.gaussians.scales += 0.01 * torch.randn(40, 3)
        drawn = quantiser.before(now)
        asked[iteration] = len(calls) - before
        indices = quantiser.indices[COVARIANCE]
        for k in indices.unique():
            wanted = now.gaussians.scales[indices == k].mean(0)
            torch.testing.assert_close(drawn.scales[indices == k][0], wanted, rtol=1e-5, atol=1e-6)
    assert [iteration for iteration, count in asked.items() if count] == [10, 15, 20]


def test_joined_colours_share_an_index():
    both = Quantiser(settings(books=(Book(("sh_dc", "sh_rest"), 5),)))
    drawn = both.before(state(iteration=10))
    assert len(torch.cat([drawn.sh_dc, drawn.sh_rest.flatten(1)], dim=1).unique(dim=0)) <= 5


def test_frozen_codes_are_only_assigned():
    codes = torch.randn(7, 3)
    quantiser = Quantiser(settings(books=(Book(COVARIANCE, 7),)), frozen={COVARIANCE: codes})
    for iteration in range(10, 22):
        quantiser.before(state(iteration=iteration))
    assert torch.equal(quantiser.finish(state().gaussians).codebooks[0].codes, codes)


def test_the_penalty_is_lambda_times_the_sum_of_opacities_in_its_window():
    quantiser = Quantiser(settings(penalty=0.3, penalty_start=10, penalty_end=20))
    for iteration, acts in ((10, False), (11, True), (20, True), (21, False)):
        now = state(iteration=iteration)
        wanted = 0.3 * sum(1 / (1 + torch.exp(-o)) for o in now.gaussians.opacities) if acts else torch.tensor(0.0)
        torch.testing.assert_close(quantiser.penalty(now), wanted)


def test_faint_gaussians_are_pruned_in_the_window_and_the_rest_keep_their_codes():
    quantiser = Quantiser(settings(penalty=0.3, penalty_start=0, penalty_end=20, prune_interval=7))
    now = state(iteration=14)
    with torch.no_grad():
        now.gaussians.opacities[::2] = -9.0  # sigmoid below 0.005
    quantiser.before(now)
    before = quantiser.indices[COVARIANCE].clone()
    now.iteration = 13
    quantiser.after(now)
    assert len(now.gaussians) == 40
    now.iteration = 14
    quantiser.after(now)
    assert len(now.gaussians) == 20
    assert torch.equal(quantiser.indices[COVARIANCE], before[1::2])
    assert len(now.adam.first["scales"]) == 20


def views(n=3):
    cameras = [camera(24, 20) for _ in range(n)]
    wanted = scene(30, seed=7, size=-1.0).map(torch.Tensor.float)
    return cameras, [render(wanted, view, background=torch.ones(3)).image.detach() for view in cameras]


def quick(iterations=30):
    return TrainSettings(iterations=iterations, sh_interval=5, density=DensitySettings(end=0), background=(1.0, 1, 1))


def test_training_returns_the_codes_that_the_last_step_drew_moved_by_that_step(monkeypatch):
    drawn, raw, before = [], [], Quantiser.before

    def listen(self, state):
        drawn.append(before(self, state))
        raw.append(state.gaussians.detached())
        return drawn[-1]

    monkeypatch.setattr(Quantiser, "before", listen)
    cameras, images = views()
    found = fit(scene(40).map(torch.Tensor.float), cameras, images, quick(), settings(), extent=1.0)
    rates = Rates().at(30, 30, 1.0)
    for book in found.codebooks:
        last, behind = (joined(one, book.parameters).detach() for one in (drawn[-1], raw[-1]))
        seen, groups = last.unique(dim=0, return_inverse=True)
        assert 1 < len(seen) <= len(book.codes)
        index = book.indices.long()
        assert ((index[:, None] == index) == (groups[:, None] == groups)).all()  # who shares a code with whom
        step = 3.5 * rates[book.parameters[0]]  # the most that Adam moves a value
        returned = book.codes[index]
        assert float((returned - last).abs().max()) <= step
        assert float((returned - behind).abs().max()) > 10 * step  # the parameters behind are far from the codes
    assert float((found.plain["means"] - drawn[-1].means.detach()).abs().max()) <= 3.5 * rates["means"] + 1e-7


def test_what_is_returned_is_what_the_next_step_would_draw():
    now, quantiser = state(), Quantiser(settings())
    for iteration in range(10, 23):
        now.iteration = iteration
        with torch.no_grad():
            for tensor in now.gaussians.tensors().values():
                tensor += 0.01 * torch.randn(tensor.shape)
        if iteration == 22:
            found = quantiser.finish(now.gaussians).decode()
        drawn = quantiser.before(now)
    for name, tensor in drawn.tensors().items():
        assert torch.equal(tensor, getattr(found, name))


def test_training_is_the_same_for_the_same_seed():
    cameras, images = views()
    start = scene(40).map(torch.Tensor.float)
    found = [fit(start, cameras, images, quick(), settings(), extent=1.0) for _ in range(2)]
    assert [len(book.codes) for book in found[0].codebooks] == [6, 6, 8, 8]
    for one, two in zip(*(f.decode().tensors().values() for f in found), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(found[0].decode().means, start.means)


def test_training_while_quantised_beats_quantising_afterwards():
    """Two colours for forty Gaussians: opacities and shapes have to make up for it."""
    from effbook.gaussians.train import fit as fit_plain

    cameras, images = views()
    start = scene(40, size=-1.0).map(torch.Tensor.float)
    few = settings(books=(Book(("sh_dc", "sh_rest"), 2),), start=100, end=280)
    after = compress(fit_plain(start, cameras, images, quick(300), extent=1.0), few).decode()
    along = fit(start, cameras, images, quick(300), few, extent=1.0).decode()

    def error(gaussians: Gaussians) -> float:
        drawn = render(gaussians, cameras[0], background=torch.ones(3)).image
        return float((drawn - images[0]).square().mean())

    assert error(along) < 0.8 * error(after)


def test_settings_that_cannot_work_are_refused_before_training():
    cameras, images = views()
    start = scene(40).map(torch.Tensor.float)
    with pytest.raises(EffbookError, match="quantisation starts at 31 of 30"):
        fit(start, cameras, images, quick(), settings(start=31, end=31), extent=1.0)
    for end in (20, 11):  # the quantised iterations are those from 10 on, the last with densification is end - 1
        late = dataclasses.replace(quick(), density=DensitySettings(end=end))
        with pytest.raises(EffbookError, match=f"densification ends at {end}"):
            fit(start, cameras, images, late, settings(), extent=1.0)
    for broken in ({"end": 9}, {"interval": 0}, {"penalty": -1.0}, {"books": (Book(("scales", "scales"), 3),)}):
        with pytest.raises(EffbookError):
            settings(**broken)


def never(*_, **__):
    pytest.fail("training began")


@pytest.mark.parametrize(
    ("density", "most"),
    [({"end": 0}, 40), ({"end": 10, "start": 500}, 40), ({"end": 10, "start": 1, "most": 50}, 50)],
    ids=["none", "none in time", "to 50"],
)
def test_a_codebook_larger_than_the_gaussians_can_become_is_refused_before_training(monkeypatch, density, most):
    monkeypatch.setattr(train, "fit", never)
    cameras, images = views()
    training = dataclasses.replace(quick(), density=DensitySettings(**density))
    start, large = scene(40).map(torch.Tensor.float), settings(books=(Book(COVARIANCE, 5), Book(("sh_dc",), most + 1)))
    with pytest.raises(EffbookError, match=f"{most + 1} codes is larger than the {most} Gaussians"):
        fit(start, cameras, images, training, large, extent=1.0)
    with pytest.raises(pytest.fail.Exception, match="training began"):
        fit(start, cameras, images, training, settings(books=(Book(COVARIANCE, most),)), extent=1.0)


def test_densification_may_go_on_until_quantisation_starts(monkeypatch):
    monkeypatch.setattr(train, "fit", never)
    cameras, images = views()
    training = dataclasses.replace(quick(), density=DensitySettings(end=10, start=1))
    with pytest.raises(pytest.fail.Exception, match="training began"):
        fit(scene(40).map(torch.Tensor.float), cameras, images, training, settings(), extent=1.0)


def test_clustering_checks_all_codebooks_before_the_first(monkeypatch):
    monkeypatch.setattr(kmeans_module, "cluster", never)
    with pytest.raises(EffbookError, match="41 codes is larger than the 40 Gaussians"):
        compress(scene(40).map(torch.Tensor.float), settings(books=books(colour=4, covariance=41)))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_named_before_any_work(monkeypatch, bad):
    monkeypatch.setattr(train, "fit", never)
    cameras, images = views()
    broken = scene(40).map(torch.Tensor.float)
    broken.scales[3, 1] = bad
    with pytest.raises(EffbookError, match="1 values of scales are not finite"):
        compress(broken, settings())
    with pytest.raises(EffbookError, match="1 values of scales are not finite"):
        fit(broken, cameras, images, quick(), settings(), extent=1.0)


def test_the_penalty_may_act_alone():
    cameras, images = views()
    start = scene(40).map(torch.Tensor.float)
    alone = settings(books=(), start=99, end=99, penalty=0.1, penalty_start=0, penalty_end=30, prune_interval=10)
    none = settings(books=(), penalty=0.0)
    fainter, plain = (fit(start, cameras, images, quick(10), way, extent=1.0) for way in (alone, none))
    assert fainter.codebooks == ()
    assert set(fainter.plain) == set(start.tensors())
    assert float(fainter.plain["opacities"].mean()) < float(plain.plain["opacities"].mean())


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_codebook_shrinks_to_the_gaussians_that_pruning_leaves(when):
    quantiser = Quantiser(settings(penalty=0.3, penalty_start=0, penalty_end=20, prune_interval=7))
    now = state(n=40, iteration=14)
    if when == "after":
        quantiser.before(now)
    with torch.no_grad():
        now.gaussians.opacities[5:] = -9.0  # sigmoid below 0.005
    quantiser.after(now)
    now.iteration = 15
    drawn = quantiser.before(now)
    found = quantiser.finish(now.gaussians)
    assert len(found) == 5
    for book in found.codebooks:
        assert len(book.codes) <= 5
        assert torch.equal(book.codes[book.indices.long()], joined(drawn, book.parameters))
    if when == "before":
        assert [len(book.codes) for book in found.codebooks] == [5, 5, 5, 5]


def test_frozen_codes_are_kept_whole_however_few_gaussians_use_them():
    codes = torch.randn(90, 3)
    quantiser = Quantiser(settings(books=(Book(COVARIANCE, 90),)), frozen={COVARIANCE: codes})
    now = state(iteration=10)
    quantiser.before(now)
    assert torch.equal(quantiser.finish(now.gaussians).codebooks[0].codes, codes)


@pytest.mark.parametrize("codes", [torch.randn(7, 4), torch.randn(3), torch.full((7, 3), float("nan"))])
def test_frozen_codes_that_do_not_fit_are_refused(codes):
    with pytest.raises(EffbookError, match="frozen codes for scales"):
        Quantiser(settings(books=(Book(COVARIANCE, 7),)), frozen={COVARIANCE: codes})


@pytest.mark.parametrize(("codes", "kind"), [(200, torch.uint8), (300, torch.int16)])
def test_indices_at_rest_are_of_the_smallest_type(codes, kind):
    small = compress(scene(400).map(torch.Tensor.float), settings(books=(Book(COVARIANCE, codes),)), iterations=1)
    assert small.codebooks[0].indices.dtype == kind
    quantiser, now = Quantiser(settings(books=(Book(COVARIANCE, codes),))), state(n=400, iteration=10)
    quantiser.before(now)
    assert quantiser.finish(now.gaussians).codebooks[0].indices.dtype == kind
