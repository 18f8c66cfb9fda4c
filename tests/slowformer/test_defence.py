"""Adversarial training: when patches are made, which are drawn, and that it helps a victim that can be helped."""

import pytest
import torch
from slowformer.fakes import Gate, Red, drawn

from effbook.errors import EffbookError
from effbook.slowformer import AttackConfig, DefenceConfig, SurrogateLoss, defend, judge, random_patch, train_patch

ATTACK = AttackConfig(patch_px=4, steps=30, batch=8, learning_rate=0.8, seed=5)
CONFIG = DefenceConfig(attack=ATTACK, epochs=2, patches_per_epoch=5, batch=4, learning_rate=0.3, seed=1)
IMAGES = drawn(48, 3, 12, 12, seed=1, most=0.5)
TEST = drawn(20, 3, 12, 12, seed=2, most=0.5)


def own_loss(look):
    """What the victim is trained by: to be cheap with a patch, and to stay what it was without."""
    with torch.no_grad():
        before = Gate().surrogate(look.clean)
    return look.surrogate.mean() + 20 * (look.victim.surrogate(look.clean) - before).square().mean()


def test_the_defence_lowers_the_success_of_an_attack_made_anew():
    victim = Gate()
    anew = AttackConfig(patch_px=4, steps=60, batch=8, seed=99)
    before = judge(victim, TEST, train_patch(victim, IMAGES, loss=SurrogateLoss(), config=anew).patch)
    needed = [p.requires_grad for p in victim.parameters()]
    result = defend(victim, IMAGES, objective=own_loss, attack=SurrogateLoss(), config=CONFIG)
    after = judge(victim, TEST, train_patch(victim, IMAGES, loss=SurrogateLoss(), config=anew).patch)
    assert before.success_percent > 80
    assert after.success_percent < before.success_percent - 30
    assert after.clean_macs < 1.2 * before.clean_macs
    assert len(result.patches) == 10
    assert result.losses[-1] < result.losses[0]
    assert [p.requires_grad for p in victim.parameters()] == needed
    assert all(p.grad is None for p in victim.parameters())


def test_a_new_patch_joins_at_every_20_percent_of_an_epoch_and_each_is_drawn():
    counts, worn = [], []
    unlike = AttackConfig(patch_px=4, steps=1, batch=8)  # longer attacks end in one patch
    config = DefenceConfig(attack=unlike, batch=2, learning_rate=0.0, seed=1)

    def objective(look):
        worn.append(look.images[0, :, :4, :4].detach().clone())
        assert torch.equal(look.images[0, :, :4, :4], look.images[1, :, :4, :4])  # one patch a step
        assert look.victim.training
        return look.surrogate.mean()

    first = random_patch(ATTACK, image_px=(12, 12))
    result = defend(
        Gate().eval(),
        IMAGES,
        objective=objective,
        attack=lambda look: -look.surrogate.mean() if not look.victim.training else 1 / 0,
        config=config,
        patches=[first],
        watch=lambda step, loss, known: counts.append(known),
    )
    steps = 24
    expected = [1 + sum(step >= part * steps // 5 for part in range(5)) for step in range(steps)]
    assert counts == expected
    assert result.patches[0] is first
    assert len(result.patches) == 6
    drawn_ones = {next(i for i, p in enumerate(result.patches) if torch.equal(p.levels / 255, w)) for w in worn}
    assert len(drawn_ones) >= 4
    assert drawn_ones <= set(range(6))
    different = {tuple(p.levels.flatten().tolist()) for p in result.patches}
    assert len(different) == 6  # each attack has a seed of its own


def test_the_defence_is_the_same_again_and_touches_no_global_random_state():
    config = DefenceConfig(attack=AttackConfig(patch_px=4, steps=2, batch=8), batch=8, learning_rate=0.1)
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        victim = Gate().eval()
        result = defend(victim, IMAGES, objective=own_loss, attack=SurrogateLoss(), config=config)
        assert torch.equal(torch.get_rng_state(), state)
        assert not victim.training
        found.append((result.losses, victim.colours.tolist()))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("victim", "changes", "told"),
    [
        (Red(), {}, "the victim has no parameters to train"),
        (Gate().requires_grad_(False), {}, "the victim has no parameters to train"),
        (Gate(), {"config": DefenceConfig(batch=16)}, "5 patches cannot be made in an epoch of 3 steps"),
        (Gate(), {"objective": lambda look: look.surrogate.mean() / 0}, "the defence's loss is inf at step 1"),
    ],
)
def test_a_defence_that_cannot_be_is_refused(victim, changes, told):
    config = DefenceConfig(attack=AttackConfig(patch_px=4, steps=0, batch=8), batch=8)
    given = {"objective": own_loss, "attack": SurrogateLoss(), "config": config, **changes}
    with pytest.raises(EffbookError, match=told):
        defend(victim, IMAGES, **given)
