"""Random patch, TAP, universal perturbation and DeSparsify on the attack's loop, with victims of a few lines."""

import pytest
import torch
from slowformer.fakes import Red, drawn
from torch.utils.data import TensorDataset

from effbook.errors import EffbookError
from effbook.slowformer import (
    AttackConfig,
    NonTargeted,
    SurrogateLoss,
    judge,
    random_patch,
    start,
    tap_targets,
    train_patch,
    train_perturbation,
    train_taps,
)

CONFIG = AttackConfig(patch_px=6, steps=30, batch=8, seed=2)
IMAGES = drawn(16, 3, 12, 12, seed=1, most=0.3)
PAIRS = TensorDataset(IMAGES, torch.zeros(16, dtype=torch.long))  # all dark: the class is 0


def test_the_random_patch_is_where_the_attack_begins():
    patch = random_patch(CONFIG, image_px=(12, 12))
    assert torch.equal(patch.levels.float(), start(CONFIG, height_px=6, width_px=6))
    wide = random_patch(AttackConfig(), image_px=(64, 64)).levels.flatten().float()
    assert wide.mean().item() == pytest.approx(127.5, abs=3)
    assert wide.std().item() == pytest.approx(256 / 12**0.5, abs=2)


def test_ten_different_targets_are_drawn():
    targets = tap_targets(1000)
    assert len(set(targets)) == 10
    assert targets != sorted(targets)
    assert tap_targets(1000) == targets != tap_targets(1000, seed=1)
    assert sorted(tap_targets(4)) == [0, 1, 2, 3]


def test_tap_makes_each_drawn_class_the_answer_and_ntap_any_but_the_true_one():
    taps = train_taps(Red(), PAIRS, classes=2, config=CONFIG)
    assert sorted(taps) == [0, 1]
    for target, attacked in taps.items():
        assert Red().run(attacked.patch(IMAGES)).logits.argmax(1).eq(target).all()
    ntap = train_patch(Red(), PAIRS, loss=NonTargeted(), config=CONFIG).patch
    judged = judge(Red(), PAIRS, ntap)
    assert (judged.clean_accuracy, judged.attacked_accuracy) == (1.0, 0.0)


@pytest.mark.parametrize("start_at", ["uniform", "zero"])
def test_a_perturbation_keeps_its_bound_at_every_step_and_raises_the_cost_by_it(start_at):
    config = AttackConfig(steps=30, batch=8, start=start_at)
    seen = []
    perturbation, losses = train_perturbation(
        Red(),
        IMAGES,
        epsilon_levels=16,
        loss=SurrogateLoss(),
        config=config,
        watch=lambda step, loss, values: seen.append(values),
    )
    assert all(values.abs().max() <= 16 and torch.equal(values, values.round()) for values in seen)
    assert perturbation.levels.shape == (3, 12, 12)
    assert perturbation.levels[0, :4, :4].eq(16).all()
    attacked = perturbation(IMAGES)
    assert 0 <= attacked.min() <= attacked.max() <= 1
    assert (attacked - IMAGES).abs().max() <= 16 / 255 + 1e-6
    rise = Red().surrogate(attacked) - Red().surrogate(IMAGES)
    torch.testing.assert_close(rise, torch.full_like(rise, 16 / 255))
    assert losses[-1] < losses[0]


def test_a_perturbation_of_bound_0_changes_nothing():
    config = AttackConfig(steps=3, batch=8)
    found, _ = train_perturbation(Red(), IMAGES, epsilon_levels=0, loss=SurrogateLoss(), config=config)
    assert torch.equal(found(IMAGES), IMAGES)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"epsilon_levels": 256}, "the bound is 256 levels; give a whole number from 0 to 255"),
        ({"epsilon_levels": 0.06}, "the bound is 0.06 levels"),
        ({"config": AttackConfig(start="released", steps=1, batch=8)}, "has no released start"),
    ],
)
def test_a_bound_or_start_that_cannot_be_is_refused(changes, told):
    given = {"epsilon_levels": 16, "loss": SurrogateLoss(), "config": AttackConfig(steps=1, batch=8), **changes}
    with pytest.raises(EffbookError, match=told):
        train_perturbation(Red(), IMAGES, **given)


def test_a_perturbation_is_for_images_of_its_size():
    found, _ = train_perturbation(
        Red(), IMAGES, epsilon_levels=1, loss=SurrogateLoss(), config=AttackConfig(steps=0, batch=8)
    )
    with pytest.raises(EffbookError, match="resize the images"):
        found(drawn(2, 3, 14, 12))
