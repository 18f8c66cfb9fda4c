"""The shared training loop: it learns, it stops at a loss that isn't finite, and a cut run ends as an uncut one."""

import math

import pytest
import torch
from torch import nn

from effbook.errors import EffbookError
from effbook.experiments.shared.training import fit, learned, trainable
from effbook.runs.recipe import Context


def problem(seed: int = 0):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(40, 5, generator=draw)
    y = (x @ torch.randn(5, 3, generator=draw)).argmax(1)
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=draw) * 0.3)
    return model, x, y


def run(context, model, x, y, *, epochs, rate=0.05, augment=None):
    return fit(
        context,
        model,
        inputs=x,
        labels=y,
        epochs=epochs,
        batch_size=8,
        learning_rate=rate,
        seed=3,
        decay="cosine",
        augment=augment,
    )


def test_the_loss_falls(tmp_path):
    losses, step_ms = run(Context(profile="smoke", folder=tmp_path), *problem(), epochs=6)
    assert losses[-1] < 0.7 * losses[0]
    assert step_ms > 0


def test_a_run_cut_after_three_epochs_ends_with_the_same_weights(tmp_path):
    whole, x, y = problem()
    losses, _ = run(Context(profile="smoke", folder=tmp_path / "whole"), whole, x, y, epochs=6)

    class Cut(Exception):
        pass

    def cut_at_the_fourth_epoch(batch, draw, seen=[0]):  # noqa: B006
        seen[0] += 1
        if seen[0] > 3 * 5:
            raise Cut
        return batch

    context = Context(profile="smoke", folder=tmp_path / "cut")
    context.due = lambda seconds=0: True
    first, x, y = problem()
    with pytest.raises(Cut):
        run(context, first, x, y, epochs=6, augment=cut_at_the_fourth_epoch)
    second, x, y = problem(seed=0)
    resumed, _ = run(Context(profile="smoke", folder=tmp_path / "cut"), second, x, y, epochs=6)
    assert resumed == losses
    for name, value in learned(whole).items():
        assert torch.equal(learned(second)[name], value), name


def test_a_loss_that_is_not_finite_is_told_with_its_step(tmp_path):
    model, x, y = problem()
    x[7] = float("inf")
    with pytest.raises(EffbookError, match="at step"):
        run(Context(profile="smoke", folder=tmp_path), model, x, y, epochs=1)


def test_a_last_step_that_leaves_weights_that_are_not_finite_is_told(tmp_path):
    model, x, y = problem()
    last = {"steps": 0}

    def wreck(gradient):
        last["steps"] += 1
        return gradient * float("inf") if last["steps"] == 5 else gradient  # the fifth of five steps

    model[0].weight.register_hook(wreck)
    with pytest.raises(EffbookError, match=r"0\.weight is no longer finite after the last step, 5; lower"):
        run(Context(profile="smoke", folder=tmp_path), model, x, y, epochs=1)


def test_the_rate_falls_to_its_end_along_a_cosine_and_another_optimiser_is_a_name_away(tmp_path):
    seen = []
    step = torch.optim.SGD.step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            torch.optim.SGD, "step", lambda o, *a: seen.append(dict(o.param_groups[0], params=())) or step(o, *a)
        )
        model, x, y = problem()
        fit(
            Context(profile="smoke", folder=tmp_path),
            model,
            inputs=x,
            labels=y,
            epochs=2,
            batch_size=8,
            learning_rate=0.1,
            seed=0,
            method="SGD",
            options={"momentum": 0.9},
            decay="cosine",
            final_rate=0.02,
        )
    assert [group["momentum"] for group in seen] == [0.9] * 10
    expected = [0.02 + 0.04 * (1 + math.cos(math.pi * i / 10)) for i in range(10)]
    assert [group["lr"] for group in seen] == pytest.approx(expected)


def test_the_global_random_state_is_left_alone(tmp_path):
    model, x, y = problem()
    before = torch.get_rng_state()
    run(Context(profile="smoke", folder=tmp_path), model, x, y, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_only_parameters_that_train_are_counted():
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    assert trainable(model) == 6
