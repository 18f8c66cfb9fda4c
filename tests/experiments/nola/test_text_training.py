"""The training loop of the language experiments."""

import pytest
import torch

from effbook.backbones import toy_lm
from effbook.data import load_pairs
from effbook.errors import EffbookError
from effbook.experiments.nola.adapters import add_adapters
from effbook.experiments.nola.text_batches import encode, mean_target_loss
from effbook.experiments.nola.text_training import fit_texts, warmup_then_constant, warmup_then_linear
from effbook.runs.recipe import Context

ADAPTERS = {"target": "qv", "rank": 2, "k": 16, "scale_c": 1.0, "lora_alpha": 8.0, "seed": 1}


def examples():
    _, tokenizer = toy_lm()
    return encode(tokenizer, [(p.source + "\n", p.references[0]) for p in load_pairs("toy-pairs", "train")[:10]])


def adapted(**options):
    model, _ = toy_lm()
    return add_adapters(model, **(ADAPTERS | options))


def fit(model, folder, *, steps=8, due=False, **options):
    context = Context(profile="smoke", folder=folder)
    context.due = lambda seconds=0.0: due
    options = {"batch_size": 4, "learning_rate": 0.05, "weight_decay": 0.0, "warmup_steps": 2, "seed": 3} | options
    return fit_texts(context, model, examples(), steps=steps, **options)


def trained(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def test_the_learning_rate_warms_up_and_falls_in_a_straight_line():
    factors = [warmup_then_linear(s, steps=10, warmup=4) for s in range(10)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4:] == pytest.approx([1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert [warmup_then_constant(s, steps=10, warmup=2) for s in range(4)] == [0.5, 1, 1, 1]
    assert warmup_then_linear(0, steps=3, warmup=0) == warmup_then_constant(0, steps=3, warmup=0) == 1


@pytest.mark.parametrize("method", ["nola", "lora", "full"])
def test_training_lowers_the_loss(tmp_path, method):
    model = adapted(method=method)
    before = mean_target_loss(model, examples(), batch_size=8)
    out = fit(model, tmp_path, steps=15, learning_rate=0.02 if method == "full" else 0.1)
    assert len(out.losses) == 15
    assert mean_target_loss(model, examples(), batch_size=8) < before - 0.02


@pytest.mark.parametrize("method", ["nola", "lora"])
def test_a_cut_run_ends_with_the_same_coefficients_as_an_uncut_one(tmp_path, method):
    options = {"method": method, "lora_dropout": 0.2}
    whole = adapted(**options)
    losses = fit(whole, tmp_path / "whole").losses

    class Cut(Exception):
        pass

    cut, seen = adapted(**options), []

    def stop(*_):
        seen.append(1)
        if len(seen) == 6:
            raise Cut

    handle = cut.register_forward_pre_hook(stop)
    with pytest.raises(Cut):
        fit(cut, tmp_path / "cut", due=True)
    handle.remove()
    again = adapted(**options)
    assert fit(again, tmp_path / "cut").losses == losses
    for name, p in trained(whole).items():
        assert torch.equal(trained(again)[name], p), name


def test_gradients_added_up_over_small_batches_are_those_of_the_whole_batch(tmp_path):
    whole, parts = adapted(method="nola"), adapted(method="nola")
    fit(whole, tmp_path / "a")
    fit(parts, tmp_path / "b", micro_batch_size=1)
    for name, p in trained(whole).items():
        torch.testing.assert_close(trained(parts)[name], p, rtol=1e-3, atol=1e-4)


def test_the_global_random_state_is_left_alone(tmp_path):
    torch.manual_seed(11)
    before = torch.get_rng_state()
    fit(adapted(method="lora", lora_dropout=0.5), tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loss_that_is_not_finite_stops_the_run_with_one_sentence(tmp_path):
    model = adapted(method="nola")
    with torch.no_grad():
        model.model.embed_tokens.weight.fill_(float("nan"))
    with pytest.raises(EffbookError, match="the loss became nan at step 0"):
        fit(model, tmp_path)


def test_a_last_step_that_leaves_weights_that_are_not_finite_is_told(tmp_path):
    model = adapted(method="nola")
    name, p = next((name, p) for name, p in model.named_parameters() if p.requires_grad)
    p.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(EffbookError, match=f"{name} is no longer finite after the last step, 1"):
        fit(model, tmp_path, steps=1)


def test_the_counted_memory_is_weights_coefficients_and_what_autograd_holds(tmp_path):
    def memory(name, **options):
        return fit(adapted(**options), tmp_path / name, steps=2).memory_bytes

    plain = memory("plain", method="lora")
    own = memory("own", method="nola", k=256)
    shared = memory("shared", method="nola", k=256, shared_basis=True)
    m, r = 32, 2
    one_layer = 256 * (m * r + r * m) * 4  # A and B of a q projection; v's are shorter
    assert own - shared > one_layer  # two blocks hold a basis each
    assert own > plain + 2 * one_layer
    assert plain > sum(p.numel() * p.element_size() for p in toy_lm()[0].parameters())
