import pytest
import torch
from torch import nn

from effbook.errors import EffbookError
from effbook.nola import PRANCSettings, adapt_pranc, count_parameters, generate, stream_of
from effbook.nola.basis import Basis
from effbook.nola.pranc import PRANCConv2d, PRANCLinear


def twin(layer, name, shape, bound):
    """theta = sum_i alpha_i theta_i, one vector after the other."""
    numel = shape.numel()
    vectors = Basis(
        seed=layer.settings.seed,
        stream=stream_of(f"{name}/theta"),
        count=layer.settings.k,
        rows=1,
        cols=numel,
        bound=1.0,
    )
    vectors = generate(vectors, dtype=torch.float64)
    theta = torch.zeros(numel, dtype=torch.float64)
    for i in range(layer.settings.k):
        theta = theta + layer.alpha[i] * (bound * vectors[i, 0])
    return theta.reshape(shape)


@pytest.mark.parametrize("regenerate", [True, False])
@pytest.mark.parametrize("keep_base", [True, False])
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_layer_equals_its_slow_twin_forward_and_backward(regenerate, keep_base, kind):
    settings = PRANCSettings(k=6, seed=2, regenerate=regenerate, keep_base=keep_base, chunk=4)
    g = torch.Generator().manual_seed(0)
    if kind == "linear":
        base, fan_in, x = nn.Linear(5, 3, dtype=torch.float64), 5, torch.randn(4, 5, generator=g, dtype=torch.float64)
    else:
        base, fan_in = nn.Conv2d(2, 4, 3, stride=2, dtype=torch.float64), 18
        x = torch.randn(2, 2, 7, 7, generator=g, dtype=torch.float64)
    weight, bias = base.weight.detach().clone(), base.bias.detach().clone()
    layer = (PRANCLinear if kind == "linear" else PRANCConv2d)(base, settings=settings, name="a")
    with torch.no_grad():
        layer.alpha.copy_(torch.randn(6, generator=g, dtype=torch.float64))
    theta = twin(layer, "a", weight.shape, 6**-0.5 if keep_base else (6 / fan_in) ** 0.5)
    if keep_base:
        theta = theta + weight
    apply = nn.functional.linear if kind == "linear" else lambda *a: nn.functional.conv2d(*a, stride=2)
    expected, y = apply(x, theta, bias), layer(x)
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-6)
    ours, theirs = (torch.autograd.grad(out.square().sum(), layer.alpha) for out in (y, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_it_starts_with_kaimings_variance_without_the_old_weight_and_global_randomness():
    state = torch.get_rng_state()
    base = nn.Conv2d(32, 64, 3)
    torch.set_rng_state(state)
    layer = PRANCConv2d(base, settings=PRANCSettings(k=100), name="a")
    assert layer.weight().var().item() == pytest.approx(2 / (32 * 9), rel=0.1)
    assert torch.equal(torch.get_rng_state(), state)
    assert [name for name, _ in layer.named_parameters()] == ["alpha", "base.bias"]


def test_keeping_the_base_starts_at_the_base():
    base = nn.Linear(4, 3)
    x = torch.ones(2, 4)
    y = base(x)
    assert torch.equal(PRANCLinear(base, settings=PRANCSettings(k=5, keep_base=True), name="a")(x), y)


def test_as_many_independent_vectors_as_weights_reach_any_weight():
    layer = PRANCLinear(nn.Linear(4, 3, dtype=torch.float64), settings=PRANCSettings(k=12, regenerate=False), name="a")
    wanted = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vectors = torch.autograd.functional.jacobian(
        lambda a: torch.func.functional_call(Weight(layer), {"layer.alpha": a}, ()), layer.alpha.detach()
    )
    with torch.no_grad():
        layer.alpha.copy_(torch.linalg.solve(vectors.reshape(12, 12), wanted.reshape(-1)))
    torch.testing.assert_close(layer.weight(), wanted)


class Weight(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self):
        return self.layer.weight()


def test_a_model_is_adapted_and_counted():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 10))
    adapt_pranc(model, PRANCSettings(k=32), targets=["0", "3"], also_train=["1"])
    assert count_parameters(model) == 2 * 32 + 4
    assert isinstance(model[0], PRANCConv2d)
    model(torch.ones(1, 1, 4, 4)).sum().backward()
    assert model[3].alpha.grad.abs().max() > 0
    with pytest.raises(EffbookError):
        adapt_pranc(model, PRANCSettings(k=32), targets=["3"])


@pytest.mark.parametrize("fields", [{"k": 0}, {"k": 2.0}, {"k": 1, "chunk": 0}, {"k": 1, "seed": -1}, {"k": True}])
def test_impossible_values_are_refused(fields):
    with pytest.raises(EffbookError):
        PRANCSettings(**fields)


def test_two_layers_of_the_meta_device_count_without_memory():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(100_000, 10_000))
    assert count_parameters(adapt_pranc(model, PRANCSettings(k=7), targets="0")) == 7
