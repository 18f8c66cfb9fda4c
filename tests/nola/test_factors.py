"""The shared basis: one product for all layers, whatever way the model is called."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from effbook.nola import NOLASettings, adapt, adapted
from effbook.nola import factors as module


class Net(nn.Module):
    """Four layers of three shapes; may run its blocks under gradient checkpointing."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 6), nn.Linear(6, 8)])
        self.reentrant = None

    def forward(self, x):
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=self.reentrant) if self.reentrant is not None else layer(x)
            x = x.tanh()
        return x


def net(**fields):
    torch.manual_seed(0)
    s = NOLASettings(**({"k": 5, "l": 7, "rank": 2, "init": "vision", "shared_basis": True} | fields))
    model = adapt(Net().double(), s, targets=[r"layers\.\d+"])
    g = torch.Generator().manual_seed(1)
    for layer in adapted(model).values():
        layer.alpha.data.copy_(torch.randn(5, generator=g))
        layer.beta.data.copy_(torch.randn(7, generator=g))
    return model


def coefficients(model):
    return [p for p in model.parameters() if p.requires_grad]


def gradients(model, x):
    return torch.autograd.grad(model(x).square().sum(), coefficients(model))


@pytest.fixture
def x():
    return torch.randn(3, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("init", ["language", "vision", "scratch"])
@pytest.mark.parametrize("bits", [None, 4])
def test_one_product_for_all_layers_gives_what_each_layer_gives_alone(x, init, bits):
    model = net(init=init, bits=bits)
    together, grads_together = model(x), gradients(model, x)
    alone, grads_alone = model.forward(x), torch.autograd.grad(model.forward(x).square().sum(), coefficients(model))
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(grads_together, grads_alone)


def test_the_product_happens_once_a_group_of_equal_layers_and_step(x, monkeypatch):
    model = net()
    model(x)
    calls = []
    real = module.Factors.combined
    monkeypatch.setattr(module.Factors, "combined", lambda self, side: calls.append(side) or real(self, side))
    model(x).sum().backward()
    assert calls == [], "inside the model's forward no layer computes its own"
    model.forward(x)
    assert len(calls) == 8


def test_layers_of_a_shared_basis_hold_one_basis_between_them(x):
    model = net()
    model(x)
    layers = list(adapted(model).values())
    assert len({id(layer.factors.shared) for layer in layers}) == 1
    assert all(not layer.factors._held for layer in layers)
    held = layers[0].factors.shared._held
    assert sorted(tuple(t.shape) for t in held.values()) == [(5, 16), (7, 16)]
    assert not dict(model.named_buffers()), "the basis is no part of the state"


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(x, reentrant):
    model = net()
    x.requires_grad_()
    plain = model(x).square().sum()
    plain.backward()
    expected = [p.grad.clone() for p in coefficients(model)]
    model.zero_grad()
    model.reentrant = reentrant
    for _ in range(2):
        model(x).square().sum().backward()
    torch.testing.assert_close([p.grad / 2 for p in coefficients(model)], expected)


def test_two_passes_before_a_step_add_up_their_gradients(x):
    model = net()
    one = gradients(model, x)
    (model(x).square().sum() + model(x).square().sum()).backward()
    torch.testing.assert_close([p.grad / 2 for p in coefficients(model)], list(one))


def test_a_step_of_the_optimiser_is_seen_by_the_next_pass(x):
    model = net()
    optimiser = torch.optim.SGD(coefficients(model), lr=0.1)
    first = model(x)
    first.square().sum().backward()
    optimiser.step()
    second = model(x)
    assert not torch.allclose(first, second)
    torch.testing.assert_close(second, model.forward(x))


@pytest.mark.parametrize("shared", [False, True])
def test_evaluation_remembers_a_and_b_until_a_coefficient_changes(x, shared):
    model = net(shared_basis=shared)
    with torch.no_grad():
        first = model(x)
        layer = adapted(model)["layers.0"]
        memo = layer.factors._memo
        model(x)
        assert layer.factors._memo is memo
        layer.alpha.data[0] += 1.0  # leaves no trace in version counters
        assert not torch.allclose(model(x), first)
    torch.testing.assert_close(model(x).detach(), model.forward(x).detach())


def test_a_first_pass_in_inference_mode_doesnt_spoil_training(x):
    for shared in (False, True):
        model = net(shared_basis=shared, init="language")
        with torch.inference_mode():
            model(x)
        gradients(model, x)


def test_a_copy_computes_with_its_own_coefficients(x):
    model = net()
    model(x)
    twin = copy.deepcopy(model)
    torch.testing.assert_close(twin(x), model(x))
    before = model(x).detach()
    with torch.no_grad():
        for p in coefficients(twin):
            p.zero_()
    assert torch.equal(model(x), before)
    assert not torch.allclose(twin(x), before)
    assert not torch.equal(gradients(twin, x)[1], gradients(model, x)[1])


def test_what_the_seed_gives_again_isnt_in_a_saved_model(x):
    small, large = (io.BytesIO(), io.BytesIO())
    model = net()
    torch.save(model, small)
    model(x)
    torch.save(model, large)
    assert len(large.getvalue()) < len(small.getvalue()) + 200


def test_the_model_may_change_its_dtype_without_losing_the_basis(x):
    model = net()
    y = model(x)
    model.to(torch.bfloat16)
    model(x.bfloat16())
    model.double()
    # only weights and coefficients were rounded on the way; the basis is drawn anew
    torch.testing.assert_close(model(x), y, rtol=0.2, atol=0.2)
    held = adapted(model)["layers.0"].factors.shared._held
    exact = [t for key, t in held.items() if key[2] == torch.float64]
    rounded = [t for key, t in held.items() if key[2] == torch.float32]
    assert len(exact) == len(rounded) == 2
    assert all(torch.equal(a, b.double()) for a, b in zip(exact, rounded, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_model_moves_to_the_gpu_and_computes_the_same(x):
    model = net()
    y = model(x)
    model.cuda()
    torch.testing.assert_close(model(x.cuda()).cpu(), y)
