"""The loop beside a slow twin written from section 4.1.3.2, what it leaves alone, and what it refuses."""

import copy

import numpy as np
import pytest
import torch
from slowformer.fakes import HIGH, LOW, Gate, Red, drawn
from torch.utils.data import TensorDataset

from effbook.errors import EffbookError
from effbook.slowformer import (
    AttackConfig,
    NonTargeted,
    SurrogateLoss,
    judge,
    optimise,
    paste,
    project,
    random_patch,
    start,
    train_patch,
)
from effbook.training.seeds import generator

SMALL = AttackConfig(patch_px=4, steps=30, batch=8, seed=3)
IMAGES = drawn(24, 3, 12, 12, seed=1, most=0.3)


def train(victim=None, data=IMAGES, *, loss=None, watch=None, make=None, **changes):
    config = AttackConfig(**{"patch_px": 4, "steps": 30, "batch": 8, "seed": 3, **changes})
    return train_patch(victim or Red(), data, loss=loss or SurrogateLoss(), config=config, watch=watch, make=make)


# ------------------------------------------------------------------------------- the loop and its twin


class Curved:
    """A cost that curves, so that the gradient changes from step to step."""

    weights = drawn(3, 12, 12, seed=9, dtype=torch.float64) - 0.5

    def surrogate(self, images):
        return (images * self.weights).sum((1, 2, 3)).mul(0.2).tanh()


def slow_steps(images, levels, *, steps, rate, top, left, mean, std):
    """Patch in normalised space, AdamW by its formula, no decay; back to levels, cut and floored after each step."""
    mean, std = np.array(mean)[:, None, None], np.array(std)[:, None, None]
    weights, side = Curved.weights.numpy(), levels.shape[1]
    first, second = np.zeros_like(levels), np.zeros_like(levels)
    for t in range(1, steps + 1):
        x = (levels / 255 - mean) / std
        gradient = np.zeros_like(levels)
        for image in images:
            pasted = image.copy()
            pasted[:, top : top + side, left : left + side] = x * std + mean
            slope = 0.2 * (1 - np.tanh(0.2 * (pasted * weights).sum()) ** 2)
            gradient -= slope * weights[:, top : top + side, left : left + side] * std / len(images)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        x = x - rate * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
        levels = np.floor(np.clip((x * std + mean) * 255, 0, 255) + 1e-9)
        yield levels


def test_each_step_is_the_slow_twins_in_float64():
    images = drawn(8, 3, 12, 12, seed=5, dtype=torch.float64)
    config = AttackConfig(patch_px=4, top_px=5, left_px=2, steps=20, batch=8)
    begin = start(config, height_px=4, width_px=4).double()
    found = []
    values, losses = optimise(
        Curved(),
        images,
        begin,
        loss=SurrogateLoss(),
        place=lambda images, values: paste(images, values, top_px=5, left_px=2),
        project=project,
        config=config,
        watch=lambda step, loss, values: found.append(values.numpy().copy()),
    )
    twin = slow_steps(
        images.numpy(), begin.numpy(), steps=20, rate=0.2, top=5, left=2, mean=config.mean, std=config.std
    )
    for step, (fast, slow) in enumerate(zip(found, twin, strict=True), start=1):
        np.testing.assert_array_equal(fast, slow, err_msg=f"step {step}")
    assert np.array_equal(found[-1], values.numpy())
    assert not np.array_equal(found[-1], begin.numpy())
    assert losses[-1] < losses[0]


def test_a_cost_that_rises_with_red_in_the_corner_reaches_its_bound_and_a_random_patch_does_not():
    patch, losses = train(steps=60)
    assert patch.levels[0].eq(255).all()
    assert losses[-1] == pytest.approx(-1)
    test = drawn(10, 3, 12, 12, seed=77, most=0.3)
    judged = judge(Red(), test, patch, batch=4)
    assert judged.success_percent == pytest.approx(100)
    assert judged.attacked_macs == pytest.approx(HIGH)
    assert judged.clean_macs_each.tolist() == pytest.approx((LOW + (HIGH - LOW) * Red().surrogate(test)).tolist())
    by_chance = judge(Red(), test, random_patch(SMALL, image_px=(12, 12)))
    assert 10 < by_chance.success_percent < 70


def test_an_attack_that_lowers_the_cost_has_a_negative_success():
    patch, _ = train(steps=60, loss=lambda look: look.surrogate.mean())
    judged = judge(Red(), IMAGES, patch)
    assert patch.levels[0].eq(0).all()
    assert judged.success_percent < -10
    mean = float(Red().surrogate(IMAGES).mean())
    assert judged.success_percent == pytest.approx(-100 * mean / (1 - mean), rel=1e-5)


def test_an_attack_of_size_0_changes_nothing():
    patch, losses = train(patch_px=0, steps=3)
    assert torch.equal(patch(IMAGES), IMAGES)
    assert judge(Red(), IMAGES, patch).success_percent == 0
    assert len(losses) == 3


def test_the_patch_is_the_same_for_all_images_and_what_is_beside_it_stays():
    patch, _ = train(top_px=3, left_px=7, loss=lambda look: -look.images.square().mean())
    pasted = patch(IMAGES)
    for image, before in zip(pasted, IMAGES, strict=True):
        assert torch.equal(image[:, 3:7, 7:11], patch.levels / 255)
        image[:, 3:7, 7:11] = before[:, 3:7, 7:11]
        assert torch.equal(image, before)


def test_a_patch_has_256_levels_and_keeps_to_them_after_each_step():
    levels = start(AttackConfig(), height_px=64, width_px=64)
    assert levels.unique().tolist() == list(range(256))
    seen = []
    train(watch=lambda step, loss, values: seen.append(values))
    assert len(seen) == 30
    for values in seen:
        assert torch.equal(values, values.round())
        assert 0 <= float(values.min()) <= float(values.max()) <= 255
    assert torch.equal(project(torch.tensor([-3.0, 6.9, 7.0, 254.999, 300.0])), torch.tensor([0.0, 6, 7, 254, 255]))


def test_the_released_start_is_uniform_within_half_a_unit_of_normalised_space():
    config = AttackConfig(start="released")
    levels = start(config, height_px=64, width_px=64)
    for channel, mean, std in zip(levels, config.mean, config.std, strict=True):
        low, high = 255 * (mean - 0.5 * std), 255 * (mean + 0.5 * std)
        assert low - 1 <= float(channel.min()) <= low + 2
        assert high - 2 <= float(channel.max()) <= high
    assert start(AttackConfig(start="zero"), height_px=2, width_px=2).eq(0).all()


def test_a_pixel_without_a_gradient_stays_and_one_with_moves_eleven_levels_a_step():
    begin = start(AttackConfig(patch_px=6), height_px=6, width_px=6)  # wider than the corner
    values, _ = optimise(
        Red(),
        IMAGES,
        begin,
        loss=SurrogateLoss(),
        place=paste,
        project=project,
        config=AttackConfig(patch_px=6, steps=5, batch=8),
    )
    corner = torch.zeros(3, 6, 6, dtype=torch.bool)
    corner[0, :4, :4] = True
    assert torch.equal(values[~corner], begin[~corner])
    moved = (values - begin)[corner & (begin < 190)]  # 0.2 x 0.229 x 255 = 11.7, floored
    assert moved.eq(5 * 11).all()


# ------------------------------------------------------------------------------- what is left alone


def test_the_victim_is_frozen_during_the_attack_and_afterwards_as_it_was():
    victim = Gate().train()
    victim.brightness.requires_grad_(False)
    before, seen = copy.deepcopy(victim.state_dict()), []

    def loss(look):
        seen.append((look.victim.training, any(p.requires_grad for p in look.victim.parameters())))
        return -look.surrogate.mean()

    images = IMAGES.clone()
    train(victim, images, loss=loss, steps=3)
    assert seen == [(False, False)] * 3
    assert victim.training
    assert [p.requires_grad for p in victim.parameters()] == [True, False]
    assert all(p.grad is None for p in victim.parameters())
    assert all(torch.equal(before[name], value) for name, value in victim.state_dict().items())
    assert torch.equal(images, IMAGES)
    with pytest.raises(RuntimeError, match="loss breaks"):
        train(victim, loss=breaks)
    assert victim.training


def breaks(look):
    raise RuntimeError("the loss breaks")


class Noisy(Red):
    def surrogate(self, images):
        return super().surrogate(images) + torch.randn(len(images)) * images[:, 1, :4, :4].mean((1, 2))


def test_no_global_random_state_is_touched_and_the_same_seed_gives_the_same_patch():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = train(Noisy(), steps=5)
    judge(Noisy(), IMAGES, one.patch)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    two, other = train(Noisy(), steps=5), train(Noisy(), steps=5, seed=4)
    assert torch.equal(one.patch.levels, two.patch.levels)
    assert one.losses == two.losses
    assert not torch.equal(one.patch.levels, other.patch.levels)


def test_bytes_and_pairs_and_lists_are_data_sets_too():
    as_bytes = (IMAGES * 255).round().byte()
    labels = torch.arange(24) % 2
    sets = [
        as_bytes,
        TensorDataset(as_bytes, labels),
        [(image, int(label)) for image, label in zip(as_bytes, labels, strict=True)],
    ]
    patches = [train(data=data, steps=4).patch.levels for data in sets]
    assert torch.equal(patches[0], patches[1])
    assert torch.equal(patches[0], patches[2])
    judged = [judge(Red(), data, random_patch(SMALL, image_px=(12, 12))) for data in sets]
    assert judged[0].clean_accuracy is None
    assert judged[1].clean_accuracy == judged[2].clean_accuracy == pytest.approx(0.5, abs=0.4)
    assert judged[1].attacked_accuracy is not None


def test_views_are_made_before_the_patch_is_pasted():
    seen = []

    def flipped(images, draw):
        assert isinstance(draw, torch.Generator)
        return images.flip(3) if torch.rand((), generator=draw) >= 0 else images

    def loss(look):
        seen.append(torch.equal(look.images[:, :, :4, :4], look.images[:1, :, :4, :4].expand(8, -1, -1, -1)))
        seen.append(torch.equal(look.images[:, :, 4:], look.clean[:, :, 4:]))
        seen.append(any(torch.equal(look.clean[0], image.flip(2)) for image in IMAGES))
        return -look.surrogate.mean()

    train(loss=loss, make=flipped, steps=2)
    assert seen == [True] * 6


def test_an_epoch_shows_each_image_once_and_the_next_in_another_order():
    seen = []

    def loss(look):
        seen.extend(look.clean[:, 2, 11, 11].tolist())
        return -look.surrogate.mean()

    train(loss=loss, steps=6)
    assert sorted(seen[:24]) == sorted(seen[24:]) == sorted(IMAGES[:, 2, 11, 11].tolist())
    assert seen[:24] != seen[24:]


# ------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"patch_px": 13}, "a patch of 13 x 13 pixels is larger than images of 12 x 12; make the patch smaller"),
        ({"left_px": 9}, "4 x 4 pixels at 0 from the top and 9 from the left goes over the edge of images of 12 x 12"),
        ({"batch": 25}, "24 images are fewer than a batch of 25; choose a smaller batch"),
        ({"data": IMAGES - 0.5}, "hold numbers from -0.5 to -0.2.*; give uint8, or floating numbers in 0..1"),
        ({"data": IMAGES[:, :1]}, "the patch has 3 channels and the images 1"),
        ({"data": IMAGES[0]}, r"images have the shape \(1, 12, 12\)|fewer than a batch"),
        ({"data": IMAGES[:0]}, "the data set is empty"),
        ({"data": [IMAGES[0], IMAGES[1, :, :5]] * 8}, "images have the sizes"),
        ({"loss": lambda look: look.surrogate.detach().mean()}, "the victim's cost has no gradient for its images"),
        ({"loss": lambda look: look.surrogate.mean() * torch.nan}, "the attack's loss is nan at step 1"),
        ({"loss": lambda look: look.images.sub(look.images).sum().sqrt()}, "gradient is not finite at step 1"),
        ({"loss": NonTargeted()}, "a loss of the task needs labels, and an image has none"),
        ({"patch_px": -1}, "patch_px is -1"),
        ({"noise": True}, "Red decides without noise; attack it without `noise`"),
        ({"start": "grey"}, "start is 'grey'; choose one of uniform, released, zero"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"mean": (0.5,)}, "are no normalisation"),
    ],
)
def test_what_cannot_be_is_told_in_one_sentence(changes, told):
    with pytest.raises(EffbookError, match=told):
        train(**changes)


class Hard(Red):
    """A victim that decides by a threshold and shows no trace."""

    def surrogate(self, images):
        return (super().surrogate(images) > 0.2).float()


def test_a_victim_without_a_differentiable_cost_is_told_so():
    with pytest.raises(EffbookError, match="no gradient for its images; give a victim whose `surrogate`"):
        train(Hard())


def test_an_attack_that_could_not_move_is_not_taken_for_a_robust_victim():
    with pytest.raises(EffbookError, match="the gradient was 0 for every pixel in all 30 steps"):
        train(loss=lambda look: look.surrogate.mean() * 0)


def test_a_patch_is_for_images_of_its_size():
    patch, _ = train(steps=1)
    with pytest.raises(EffbookError, match="for images of 12 x 12 pixels, and these have 14 x 12; resize"):
        judge(Red(), drawn(4, 3, 14, 12), patch)


def test_a_victim_that_saves_nothing_cannot_be_judged():
    patch, _ = train(steps=1)
    with pytest.raises(EffbookError, match="saves nothing"):
        judge(Red(), torch.ones(4, 3, 12, 12), patch)


def test_draws_do_not_depend_on_one_another():
    numbers = [torch.rand(3, generator=generator(0, purpose)).tolist() for purpose in range(8)]
    assert len({tuple(row) for row in numbers}) == 8
