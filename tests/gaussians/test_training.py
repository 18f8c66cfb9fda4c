"""Density control, the optimiser and the training loop, each against what the text of 3DGS says."""

import dataclasses

import pytest
import torch
from gaussians_twin import camera, scene

from effbook.errors import EffbookError
from effbook.gaussians.config import DensitySettings, Rates, TrainSettings
from effbook.gaussians.densify import PullMeter, densify, prune
from effbook.gaussians.model import SH_C0, from_points
from effbook.gaussians.optimise import Adam
from effbook.gaussians.rasterise import render
from effbook.gaussians.train import camera_extent, fit, image_loss, load_state, save_state


def single(n=40, **changes):
    return scene(n, **changes).map(torch.Tensor.float)


def views(n=3, size=(24, 20)):
    wanted = single(30, seed=7, size=-1.0)
    cameras = [camera(*size, distance=5.0 + i) for i in range(n)]
    return cameras, [render(wanted, view, background=torch.ones(3)).image.detach() for view in cameras]


def test_a_start_from_points_has_their_colours_and_the_distance_to_their_neighbours():
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [9, 9, 9]])
    start = from_points(points, torch.full((5, 3), 0.7))
    torch.testing.assert_close(0.5 + SH_C0 * start.sh_dc, torch.full((5, 3), 0.7))
    assert float(start.scales[0, 0].exp()) == pytest.approx(1.0)  # three neighbours at distance 1
    assert float(start.scales[1, 0].exp()) == pytest.approx(((1 + 2 + 2) / 3) ** 0.5)
    torch.testing.assert_close(start.opacities.sigmoid(), torch.full((5,), 0.1))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (torch.zeros(0, 3), "has 0 points"),
        (torch.rand(3, 3), "has 3 points"),
        (torch.ones(9, 3), "in one place"),
        (torch.full((9, 3), float("nan")), "not finite"),
        (torch.rand(9, 2), "give \\[N, 3\\]"),
    ],
)
def test_a_point_cloud_that_cannot_be_used_is_refused(points, message):
    with pytest.raises(EffbookError, match=message):
        from_points(points, torch.rand(len(points), 3))


def test_the_optimiser_is_adam_with_a_rate_for_each_parameter():
    ours = single().map(lambda t: t.requires_grad_())
    theirs = single().map(lambda t: t.requires_grad_())
    rates = Rates().at(0, 10, 2.0)
    groups = [{"params": [t], "lr": rates[name]} for name, t in theirs.tensors().items()]
    adam, wanted = Adam(ours), torch.optim.Adam(groups, eps=1e-15)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        for a, b in zip(ours.tensors().values(), theirs.tensors().values(), strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        adam.step(ours, rates)
        wanted.step()
    for a, b in zip(ours.tensors().values(), theirs.tensors().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_the_rate_of_the_means_falls_exponentially_with_the_scenes_extent():
    rates = Rates()
    assert rates.at(0, 100, 3.0)["means"] == pytest.approx(3 * 1.6e-4)
    assert rates.at(50, 100, 1.0)["means"] == pytest.approx((1.6e-4 * 1.6e-6) ** 0.5)
    assert rates.at(100, 100, 1.0)["means"] == pytest.approx(1.6e-6)
    assert rates.at(0, 100, 3.0)["scales"] == rates.at(100, 100, 1.0)["scales"] == 5e-3


def test_moments_follow_their_gaussians():
    gaussians = single(4)
    adam = Adam(gaussians)
    adam.first["opacities"] = torch.arange(4.0)
    adam.follow(torch.tensor([2, 0, -1]))
    assert adam.first["opacities"].tolist() == [2.0, 0.0, 0.0]
    assert adam.first["means"].shape == (3, 3)


def pulled(n, which, size):
    """A model of n Gaussians of one size, of which some were pulled strongly."""
    gaussians = single(n)
    gaussians.scales = torch.full((n, 3), float(torch.tensor(size).log()))
    gaussians.opacities = torch.ones(n)
    meter = PullMeter(n)
    meter.seen += 2
    meter.pull[list(which)] = 2 * 1e-3
    return gaussians, meter


def grow(gaussians, meter, **changes):
    settings = DensitySettings(**changes)
    generator = torch.Generator().manual_seed(0)
    return densify(gaussians, meter, extent=1.0, settings=settings, after_reset=False, generator=generator)


def test_small_ones_that_are_pulled_are_cloned():
    gaussians, meter = pulled(5, [1, 3], 0.005)
    grown, origin = grow(gaussians, meter)
    assert origin.tolist() == [0, 1, 2, 3, 4, -1, -1]
    assert torch.equal(grown.means, gaussians.means[[0, 1, 2, 3, 4, 1, 3]])


def test_large_ones_that_are_pulled_are_split_in_two_smaller_ones():
    gaussians, meter = pulled(5, [1], 0.05)
    grown, origin = grow(gaussians, meter)
    assert origin.tolist() == [0, 2, 3, 4, -1, -1]
    torch.testing.assert_close(grown.scales[4:].exp(), torch.full((2, 3), 0.05 / 1.6))
    assert not torch.equal(grown.means[4], grown.means[5])
    assert float((grown.means[4:] - gaussians.means[1]).norm(dim=-1).max()) < 5 * 0.05


def test_no_more_are_added_than_there_is_room_for_the_most_pulled_first():
    gaussians, meter = pulled(5, [0, 1, 2], 0.005)
    meter.pull[1] = 9.0
    grown, _ = grow(gaussians, meter, most=6)
    assert len(grown) == 6
    assert torch.equal(grown.means[5], gaussians.means[1])


def test_faint_ones_go_and_after_the_reset_large_ones_too():
    gaussians, meter = pulled(6, [], 0.005)
    gaussians.opacities[2] = -9.0
    gaussians.scales[3] = 0.0  # size 1, the scene's extent
    meter.widest[4] = 30.0
    _, origin = grow(gaussians, meter)
    assert origin.tolist() == [0, 1, 3, 4, 5]
    generator = torch.Generator().manual_seed(0)
    settings = DensitySettings()
    _, origin = densify(gaussians, meter, extent=1.0, settings=settings, after_reset=True, generator=generator)
    assert origin.tolist() == [0, 1, 4, 5]
    settings = DensitySettings(too_wide_px=20.0)
    _, origin = densify(gaussians, meter, extent=1.0, settings=settings, after_reset=True, generator=generator)
    assert origin.tolist() == [0, 1, 5]


def test_nothing_left_is_an_error():
    gaussians, meter = pulled(3, [], 0.005)
    gaussians.opacities = torch.full((3,), -9.0)
    with pytest.raises(EffbookError, match="no Gaussian"):
        grow(gaussians, meter)
    with pytest.raises(EffbookError, match="no Gaussian"):
        prune(gaussians, 0.005)


def test_the_meter_averages_gradients_in_half_images_over_the_views_that_saw_a_gaussian():
    gaussians = single(20, size=-1.0).map(lambda t: t.requires_grad_())
    view = camera(24, 20)
    seen = render(gaussians, view)
    (seen.image**2).sum().backward()
    meter = PullMeter(20)
    meter.note(seen.splats, view)
    meter.note(seen.splats, view)
    wanted = torch.zeros(20)
    slopes = seen.splats.means2d.grad * torch.tensor([12.0, 10.0])
    wanted[seen.splats.index] = slopes.norm(dim=-1)
    torch.testing.assert_close(meter.mean_pull, wanted)


def test_training_brings_the_images_nearer_and_is_the_same_for_the_same_seed():
    cameras, images = views()
    settings = TrainSettings(
        iterations=120, sh_interval=20, background=(1.0, 1, 1), density=DensitySettings(start=20, end=80, interval=20)
    )
    start = single(40, size=-1.0)
    losses: list[float] = []
    found = [fit(start, cameras, images, settings, extent=1.0, watch=lambda i, x: losses.append(x)) for _ in range(2)]
    assert sum(losses[110:120]) < 0.7 * sum(losses[:10])
    assert all(torch.equal(a, b) for a, b in zip(found[0].tensors().values(), found[1].tensors().values(), strict=True))
    other = fit(start, cameras, images, dataclasses.replace(settings, seed=1), extent=1.0)
    assert len(other) != len(found[0]) or not torch.equal(other.means, found[0].means)


def test_training_touches_neither_the_start_nor_the_global_random_state():
    cameras, images = views(1)
    start = single(10, size=-1.0)
    before, state = start.detached(), torch.get_rng_state()
    settings = TrainSettings(iterations=30, density=DensitySettings(start=5, end=25, interval=10))
    fit(start, cameras, images, settings, extent=1.0)
    assert torch.equal(start.means, before.means)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_loss_that_is_not_finite_stops_the_training():
    cameras, images = views(1)
    with pytest.raises(EffbookError, match="iteration 1"):
        fit(single(), cameras, [images[0] * float("nan")], TrainSettings(iterations=3), extent=1.0)
    with pytest.raises(EffbookError, match="one image a camera"):
        fit(single(), cameras, [], TrainSettings(iterations=3), extent=1.0)


def test_the_loss_is_l1_and_ssim_in_the_proportion_of_3dgs():
    image, wanted = torch.rand(2, 20, 16, 3, generator=torch.Generator().manual_seed(0)).unbind(0)
    assert float(image_loss(image, wanted, 0.0)) == pytest.approx(float((image - wanted).abs().mean()))
    assert float(image_loss(image, image, 0.2)) == pytest.approx(0.0, abs=1e-6)


def test_the_extent_is_a_tenth_more_than_the_farthest_camera_from_their_middle():
    cameras = [camera(distance=d) for d in (4.0, 6.0)]
    assert camera_extent(cameras) == pytest.approx(1.1)


def test_training_that_is_resumed_ends_as_if_it_had_never_stopped(tmp_path):
    cameras, images = views()
    start = single(40)
    density = DensitySettings(start=4, end=30, interval=5, reset_interval=12, gradient_threshold=1e-6, most=60)
    settings = TrainSettings(iterations=40, sh_interval=5, density=density)

    def keep(state):
        if state.iteration == 17:
            save_state(state, tmp_path / "state.safetensors")

    whole = fit(start, cameras, images, settings, extent=2.0, keep=keep)
    state = load_state(tmp_path / "state.safetensors")
    assert (state.iteration, state.adam.steps) == (17, 17)
    assert state.seconds > 0
    resumed = fit(start, cameras, images, settings, extent=2.0, resume=state)
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, getattr(resumed, name)), name


def test_a_file_that_holds_no_state_is_refused(tmp_path):
    (tmp_path / "state.safetensors").write_bytes(b"nothing")
    with pytest.raises(EffbookError, match="holds no state"):
        load_state(tmp_path / "state.safetensors")


def test_values_that_are_not_finite_and_cameras_in_one_place_are_refused():
    images, settings = [torch.zeros(4, 4, 3)], TrainSettings(iterations=1)
    broken = single(4)
    broken.scales[1, 2] = float("nan")
    with pytest.raises(EffbookError, match="scales are not finite"):
        fit(broken, [camera(4, 4)], images, settings, extent=1.0)
    with pytest.raises(EffbookError, match="extent is 0"):
        fit(single(4), [camera(4, 4)], images, settings, extent=0.0)


@pytest.mark.parametrize("background", [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0)])
def test_opacities_are_reset_every_interval_and_once_more_before_white(background):
    density = DensitySettings(start=3, end=20, interval=100, reset_interval=10)
    settings = TrainSettings(iterations=15, density=density, background=background)
    most = []
    base = single(4)
    base.opacities = torch.full((4,), 3.0)
    fit(
        base, [camera(4, 4)], [torch.zeros(4, 4, 3)], settings, extent=1.0,
        keep=lambda state: most.append(float(state.gaussians.opacities.detach().max())),
    )  # fmt: skip
    ceiling = float(torch.tensor(0.01).logit())
    assert most[9] == pytest.approx(ceiling)
    assert (most[2] == pytest.approx(ceiling)) == (background == (1.0, 1.0, 1.0))
    assert most[1] > 0
