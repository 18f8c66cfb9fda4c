"""Prediction heads: their layers as A.2.2.5 lists them, and seeds."""

import pytest
import torch
from torch import nn

from effbook.errors import EffbookError
from effbook.simreg import prediction_head


def told(head):
    """A head's layers as a word."""
    names = {nn.Linear: lambda m: f"{m.in_features}>{m.out_features}", nn.BatchNorm1d: lambda m: f"BN{m.num_features}"}
    return " ".join(names.get(type(m), lambda m: "ReLU")(m) for m in head)


@pytest.mark.parametrize(
    ("kind", "layers"),
    [
        ("none", ""),
        ("linear", "3>5"),
        ("2L", "3>6 BN6 ReLU 6>5"),
        ("4L", "3>6 BN6 ReLU 6>3 3>6 BN6 ReLU 6>5"),
        ("2L-equal", "3>5 BN5 ReLU 5>5"),
        ("4L-equal", "3>5 BN5 ReLU 5>5 5>5 BN5 ReLU 5>5"),
    ],
)
def test_the_layers_are_those_of_the_text(kind, layers):
    assert told(prediction_head(3, 5, kind=kind, seed=0)) == layers


def test_all_linear_layers_have_a_bias_and_the_output_may_be_negative():
    head = prediction_head(6, 4, seed=0)
    assert all(m.bias is not None for m in head if isinstance(m, nn.Linear))
    assert head(torch.randn(64, 6, generator=torch.Generator().manual_seed(0))).min() < 0


def test_a_head_depends_on_its_seed_alone_and_draws_nothing_from_the_global_state():
    before = torch.get_rng_state()
    one, same, other = (prediction_head(3, 5, seed=seed)[0].weight for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_impossible_heads_are_refused():
    with pytest.raises(EffbookError, match="the head is '3L'; choose one of"):
        prediction_head(3, 5, kind="3L", seed=0)
    with pytest.raises(EffbookError, match="a head of widths 0 and 5; give widths of at least 1"):
        prediction_head(0, 5, seed=0)
