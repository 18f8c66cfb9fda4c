"""What CompGS adds to training: straight-through gradients, codes that follow, the schedule, the penalty, pruning."""

import dataclasses

import pytest
import torch
from gaussians_twin import camera, scene

from effbook.compgs import Book, CompGSSettings, Quantiser, books, compress, fit
from effbook.compgs import kmeans as kmeans_module
from effbook.compgs.model import joined
from effbook.errors import EffbookError
from effbook.gaussians.densify import DensitySettings, PullMeter
from effbook.gaussians.model import Gaussians
from effbook.gaussians.optimise import Adam
from effbook.gaussians.rasterise import render
from effbook.gaussians.train import State, TrainSettings

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


def test_training_returns_what_was_drawn_last_and_is_the_same_for_the_same_seed():
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
    late = dataclasses.replace(quick(), density=DensitySettings(end=20))
    with pytest.raises(EffbookError, match="densification ends at 20"):
        fit(start, cameras, images, late, settings(), extent=1.0)
    with pytest.raises(EffbookError, match="larger than the 40 Gaussians"):
        fit(start, cameras, images, quick(), settings(books=books(colour=41)), extent=1.0)
    for broken in ({"end": 9}, {"interval": 0}, {"penalty": -1.0}, {"books": (Book(("scales", "scales"), 3),)}):
        with pytest.raises(EffbookError):
            settings(**broken)
