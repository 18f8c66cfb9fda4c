"""Several processes, played by one: what the rivals put into their banks is that of all."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from effbook.cmsf.networks import Networks
from effbook.experiments.cmsf import modal_training, rivals
from effbook.training.views import Batch

PART, WIDE = 4, 8


def encoder():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, WIDE), nn.ReLU())
    net.num_features = WIDE
    return net


def batch():
    images = torch.rand(PART, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    return Batch(torch.arange(PART), (images,), images.flip(0), torch.arange(PART) % 2, images + 1)


def second_of_two(monkeypatch, module):
    """Let a module take itself for the second of two processes, of which the first has the same, numbered from 10."""
    whole = {torch.int64: lambda x: torch.cat([x + 10, x]), torch.float32: lambda x: torch.cat([-x, x])}
    monkeypatch.setattr(module, "gather", lambda x: whole[x.dtype](x.detach()))
    monkeypatch.setattr(module, "own_rows", lambda x: x.chunk(2)[1])


def check(method):
    loss = method.loss(batch())
    loss.backward()
    bank = method.bank
    assert bank.filled == 2 * PART
    assert bank.index[: 2 * PART].tolist() == [10, 11, 12, 13, 0, 1, 2, 3]
    assert bank.label[: 2 * PART].tolist() == [10, 11, 10, 11, 0, 1, 0, 1]
    assert torch.equal(bank.embeddings[:PART], -bank.embeddings[PART : 2 * PART])
    assert loss.isfinite()


@pytest.mark.parametrize("name", ["supcon", "protonw"])
def test_supcon_and_protonw_have_one_bank(monkeypatch, name):
    second_of_two(monkeypatch, rivals)
    recipe = SimpleNamespace(method=name, seed=0, precision="float32", bank=16, momentum=0.9, target_in_set=True)
    check(rivals.Contrast(recipe, encoder(), 12))


@pytest.mark.parametrize("other", [None, nn.Flatten()], ids=["infonce", "coclr"])
def test_infonce_and_coclr_have_one_bank(monkeypatch, other):
    second_of_two(monkeypatch, modal_training)
    networks = Networks(encoder(), WIDE, predictor_head=nn.Identity())
    sizes = {"bank_size": 16, "k": 1, "momentum": 0.9, "seed": 0}
    method = modal_training.Contrast(networks, 2, **sizes, other=other, other_dim=None if other is None else 12)
    check(method)
    if other is not None:
        assert torch.equal(method.bank.second[PART : 2 * PART], other(batch().extra))
        assert torch.equal(method.bank.second[:PART], -other(batch().extra))
