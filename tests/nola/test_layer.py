"""The layers against a twin written from Eq. 3.1 and 3.2 as two plain loops, in float64."""

import copy
import math

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from effbook.errors import EffbookError
from effbook.nola import NOLAConv2d, NOLALinear, NOLASettings, adapt, adapted, generate, near_square, stream_of
from effbook.nola.basis import Basis

INITS = ["language", "vision", "scratch"]


def unit(seed, name, count, rows, cols):
    """The unit basis by name, straight from its definition."""
    spec = Basis(seed=seed, stream=stream_of(name), count=count, rows=rows, cols=cols, bound=1.0)
    return generate(spec, dtype=torch.float64)


def twin_delta(layer, name, m, n, fan_in):
    """Eq. 3.1, 3.2, matrix by matrix: what must be added to W [m, n]."""
    s = layer.settings
    owner = "shared" if s.shared_basis else name
    bound_a, bound_b = {
        "language": (1 / math.sqrt(s.k), 1 / math.sqrt(s.l)),
        "vision": (1 / math.sqrt(m), 1 / math.sqrt(s.rank)),
        "scratch": ((18 / (fan_in * s.rank)) ** 0.25,) * 2,
    }[s.init]
    basis_a, basis_b = unit(s.seed, f"{owner}/A", s.k, m, s.rank), unit(s.seed, f"{owner}/B", s.l, s.rank, n)
    a, b = torch.zeros(m, s.rank, dtype=torch.float64), torch.zeros(s.rank, n, dtype=torch.float64)
    for i in range(s.k):
        a = a + layer.alpha[i].double() * (bound_a * basis_a[i])
    for j in range(s.l):
        b = b + layer.beta[j].double() * (bound_b * basis_b[j])
    if s.init == "language":
        a = a + unit(s.seed, f"{name}/A0", 1, m, s.rank)[0] / math.sqrt(m)
    scale = {"language": s.scale_c / s.rank, "vision": 1 / s.rank, "scratch": s.scale_c}[s.init]
    return scale * (a @ b)


def scatter(layer, seed=0):
    """Give the coefficients values that hide nothing."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.alpha.copy_(torch.randn(layer.alpha.shape, generator=g, dtype=layer.alpha.dtype))
        layer.beta.copy_(torch.randn(layer.beta.shape, generator=g, dtype=layer.beta.dtype))
    return layer


def rand(*shape, seed=1, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("regenerate", [False, True])
def test_a_linear_layer_equals_its_slow_twin_forward_and_backward(init, shared, regenerate):
    s = NOLASettings(k=5, l=3, rank=2, seed=11, init=init, scale_c=3.0, shared_basis=shared, regenerate=regenerate)
    base = nn.Linear(7, 4, dtype=torch.float64)
    weight, bias = base.weight.detach().clone(), base.bias.detach().clone()
    model = nn.ModuleDict({"fc": base})
    layer = scatter(adapted(adapt(model, s, targets="fc"))["fc"])
    x, g = rand(6, 7), rand(6, 4, seed=2)
    expected = twin_delta(layer, "fc", 7, 4, 7)
    if init != "scratch":
        expected = expected + weight.T
    y_twin = x @ expected + bias
    gradients_twin = torch.autograd.grad((y_twin * g).sum(), [layer.alpha, layer.beta])
    y = layer(x)
    gradients = torch.autograd.grad((y * g).sum(), [layer.alpha, layer.beta])
    torch.testing.assert_close(y, y_twin)
    torch.testing.assert_close(gradients, gradients_twin)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_equals_its_slow_twin(init, groups):
    s = NOLASettings(k=4, l=6, rank=3, init=init)
    base = nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, padding_mode="reflect", groups=groups, dtype=torch.float64)
    original = copy.deepcopy(base)
    layer = scatter(NOLAConv2d(base, settings=s, name="c"))
    d1, d2 = near_square(original.weight.numel())
    delta = twin_delta(layer, "c", d1, d2, math.prod(original.weight.shape[1:])).reshape(original.weight.shape)
    with torch.no_grad():
        original.weight.copy_(delta if init == "scratch" else original.weight + delta)
    x = rand(2, 4, 8, 8)
    torch.testing.assert_close(layer(x), original(x))


@pytest.mark.parametrize("init", INITS)
def test_gradients_are_those_of_finite_differences(init):
    s = NOLASettings(k=3, l=2, rank=2, init=init)
    linear = scatter(NOLALinear(nn.Linear(4, 3, dtype=torch.float64), settings=s, name="a"))
    conv = scatter(NOLAConv2d(nn.Conv2d(2, 3, 2, dtype=torch.float64), settings=s, name="b"))
    for layer, x in ((linear, rand(2, 4)), (conv, rand(1, 2, 3, 3))):

        def f(alpha, beta, x, layer=layer):
            named = {"factors.alpha": alpha, "factors.beta": beta}
            return torch.func.functional_call(layer, named, (x,))

        alpha, beta = layer.alpha.detach().requires_grad_(), layer.beta.detach().requires_grad_()
        assert torch.autograd.gradcheck(f, (alpha, beta, x.requires_grad_()))


@pytest.mark.parametrize(
    ("numel", "shape"), [(36, (6, 6)), (432, (18, 24)), (13, (1, 13)), (1, (1, 1)), (9408, (96, 98)), (20, (4, 5))]
)
def test_the_reshape_is_exact_and_as_square_as_can_be(numel, shape):
    assert near_square(numel) == shape


def test_zero_coefficients_are_the_base_model():
    base = nn.Linear(5, 6)
    x = rand(3, 5, dtype=torch.float32)
    y = base(x)
    layer = NOLALinear(base, settings=NOLASettings(k=3, l=3, rank=2), name="a")
    assert torch.equal(layer(x), y)
    assert layer.beta.grad is None
    layer(x).sum().backward()
    assert layer.beta.grad.abs().min() > 0, "without A0 the first gradient would be zero"


def test_a_complete_basis_is_lora():
    """With k >= m r independent matrices, coefficients exist for any A and B: the outputs are those of peft's LoRA."""
    from peft import LoraConfig, get_peft_model

    m, n, r = 6, 5, 2
    base = nn.Sequential(nn.Linear(m, n, dtype=torch.float64))
    lora = get_peft_model(copy.deepcopy(base), LoraConfig(r=r, lora_alpha=3, target_modules=["0"]))
    inside = lora.base_model.model[0]
    with torch.no_grad():
        inside.lora_A["default"].weight.copy_(rand(r, m))
        inside.lora_B["default"].weight.copy_(rand(n, r, seed=5))
    wanted_a, wanted_b = inside.lora_A["default"].weight.T.double(), inside.lora_B["default"].weight.T.double()
    layer = NOLALinear(base[0], settings=NOLASettings(k=m * r, l=r * n + 3, rank=r, scale_c=3.0), name="0")
    s = layer.settings
    basis_a = unit(s.seed, "0/A", s.k, m, r).reshape(s.k, -1) / math.sqrt(s.k)
    basis_b = unit(s.seed, "0/B", s.l, r, n).reshape(s.l, -1) / math.sqrt(s.l)
    offset = unit(s.seed, "0/A0", 1, m, r)[0] / math.sqrt(m)
    with torch.no_grad():
        layer.alpha.copy_(torch.linalg.lstsq(basis_a.T, (wanted_a - offset).reshape(-1)).solution)
        layer.beta.copy_(torch.linalg.pinv(basis_b.T) @ wanted_b.reshape(-1))
    x = rand(4, m)
    torch.testing.assert_close(layer(x), lora(x), rtol=1e-5, atol=1e-6)


def test_vision_starts_beside_zero_and_all_layers_with_the_same_matrices():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    adapt(model, NOLASettings(k=4, l=5, rank=2, init="vision"), targets=["0", "1"])
    first, second = adapted(model).values()
    assert torch.all(first.alpha == 1 / 4)
    assert torch.all(first.beta == 1 / 5)
    assert first.delta_weight().abs().min() > 0
    torch.testing.assert_close(first.delta_weight(), second.delta_weight())


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_training_from_scratch_starts_with_kaimings_variance_and_without_the_old_weight(kind):
    s = NOLASettings(k=300, l=300, rank=16, init="scratch")
    if kind == "linear":
        layer, fan_in = NOLALinear(nn.Linear(256, 192), settings=s, name="a"), 256
    else:
        layer, fan_in = NOLAConv2d(nn.Conv2d(32, 64, 3), settings=s, name="a"), 32 * 9
    assert layer.base.weight is None
    assert [name for name, _ in layer.named_parameters()] == ["base.bias", "factors.alpha", "factors.beta"]
    variance = layer.delta_weight().var().item()
    assert variance == pytest.approx(2 / fan_in, rel=0.15)


def test_the_start_doesnt_touch_or_read_global_random_state():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    base = copy.deepcopy(nn.Linear(4, 4))
    torch.set_rng_state(before)
    one = NOLALinear(copy.deepcopy(base), settings=NOLASettings(k=3, l=3, rank=2, init="scratch"), name="a")
    one(torch.ones(1, 4))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    two = NOLALinear(copy.deepcopy(base), settings=NOLASettings(k=3, l=3, rank=2, init="scratch"), name="a")
    assert torch.equal(one.delta_weight(), two.delta_weight())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_merging_changes_nothing_but_rounding_and_unmerging_gives_the_old_bits(dtype, kind):
    s = NOLASettings(k=6, l=6, rank=2, init="vision")
    if kind == "linear":
        layer, x = NOLALinear(nn.Linear(8, 6), settings=s, name="a"), rand(3, 8)
    else:
        layer, x = NOLAConv2d(nn.Conv2d(3, 4, 3), settings=s, name="a"), rand(1, 3, 5, 5)
    scatter(layer)
    layer.base.to(dtype)
    x = x.to(dtype)
    original, y = layer.base.weight.clone(), layer(x)
    assert y.dtype == dtype
    layer.merge()
    assert layer.base.weight.dtype == dtype
    assert not torch.equal(layer.base.weight, original)
    loose = {"rtol": 0.1, "atol": 0.1} if dtype in (torch.bfloat16, torch.float16) else {}
    torch.testing.assert_close(layer(x), y, **loose)
    layer.merge()  # a second one is no second change
    layer.unmerge()
    assert torch.equal(layer.base.weight, original)
    layer.merge(keep_copy=False)
    layer.unmerge()
    torch.testing.assert_close(layer.base.weight, original, **({"rtol": 0.02, "atol": 0.02} if loose else {}))


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_merged_layer_from_scratch_is_a_plain_one(kind):
    s = NOLASettings(k=6, l=6, rank=2, init="scratch")
    if kind == "linear":
        layer, x = NOLALinear(nn.Linear(8, 6), settings=s, name="a"), rand(3, 8, dtype=torch.float32)
    else:
        layer, x = NOLAConv2d(nn.Conv2d(3, 4, 3), settings=s, name="a"), rand(1, 3, 5, 5, dtype=torch.float32)
    y = layer(x)
    layer.merge()
    torch.testing.assert_close(layer.base(x), y)
    layer.unmerge()
    assert layer.base.weight is None
    assert torch.equal(layer(x), y)


def test_gpt2s_transposed_layers_work():
    layer = scatter(NOLALinear(Conv1D(6, 4), settings=NOLASettings(k=3, l=3, rank=2, init="vision"), name="a"))
    x = rand(2, 3, 4, dtype=torch.float32)
    y = layer(x)
    assert y.shape == (2, 3, 6)
    layer.merge()
    torch.testing.assert_close(layer(x), y)


class EightBit(nn.Module):
    """A base that quantises: linear, names its features, and answers in half precision."""

    def __init__(self, linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.step = linear.weight.detach().abs().max() / 127
        self.register_buffer("weight", (linear.weight.detach() / self.step).round().to(torch.int8))

    def forward(self, x):
        return nn.functional.linear(x, self.weight.float() * self.step).half()


def test_a_quantised_base_gets_the_low_rank_path_beside_it_and_refuses_to_merge():
    base = EightBit(nn.Linear(6, 4))
    model = nn.ModuleDict({"fc": base})
    adapt(model, NOLASettings(k=3, l=3, rank=2, init="vision"), targets="fc")
    layer, x = scatter(adapted(model)["fc"]), rand(5, 6, dtype=torch.float32)
    assert layer(x).dtype == torch.float16, "it answers as its base does"
    torch.testing.assert_close(layer(x).float(), base(x).float() + x @ layer.delta_weight().T, rtol=1e-2, atol=1e-2)
    layer(x).sum().backward()
    assert layer.alpha.grad is not None
    before = base.weight.clone()
    with pytest.raises(EffbookError, match="quantised"):
        layer.merge()
    assert torch.equal(base.weight, before)
    assert not layer.merged
    with pytest.raises(EffbookError, match="quantised"):
        NOLALinear(base, settings=NOLASettings(k=3, l=3, rank=2, init="scratch"))


def test_autocast_keeps_the_sum_over_the_basis_in_full_precision():
    layer = scatter(NOLALinear(nn.Linear(32, 32), settings=NOLASettings(k=400, l=400, rank=2), name="a"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        a, b = layer.factors()
        assert layer(rand(2, 32, dtype=torch.float32)).dtype == torch.bfloat16
    assert a.dtype == b.dtype == torch.float32
    for got, wanted in zip((a, b), layer.factors(), strict=True):
        assert torch.equal(got, wanted)


def test_the_layers_name_the_seed_and_sharing_choose_the_basis_and_how_it_is_kept_doesnt():
    def delta(name, **fields):
        s = NOLASettings(k=7, l=5, rank=2, init="vision", **fields)
        return NOLALinear(nn.Linear(6, 4), settings=s, name=name).delta_weight()

    held = delta("a", shared_basis=False)
    torch.testing.assert_close(held, delta("a", shared_basis=False, regenerate=True, chunk=2))
    assert not torch.allclose(held, delta("b", shared_basis=False))
    torch.testing.assert_close(delta("a", shared_basis=True), delta("b", shared_basis=True))
    assert not torch.allclose(held, delta("a", shared_basis=False, seed=1))
