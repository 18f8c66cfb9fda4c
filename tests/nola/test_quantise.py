import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from torch import nn

from effbook.errors import EffbookError
from effbook.nola.config import BITS
from effbook.nola.quantise import (
    dequantise,
    fake_quantise,
    finish_lora_quantised,
    pack,
    packed_size_bytes,
    quantise,
    quantise_lora,
    scale_of,
    train_lora_quantised,
    unpack,
)


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def twin(t, bits, scale):
    """Round every entry by hand to the nearest of -q..q steps."""
    q = 2 ** (bits - 1) - 1
    return torch.tensor([max(-q, min(q, round(float(v) / float(scale)))) * float(scale) for v in t])


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
@pytest.mark.parametrize("method", ["best", "minmax"])
def test_quantisation_rounds_to_the_nearest_code(bits, method):
    t = rand(200)
    codes, scale = quantise(t, bits, method=method)
    torch.testing.assert_close(dequantise(codes, scale, bits), twin(t, bits, scale))
    assert codes.dtype == torch.uint8
    assert int(codes.max()) <= 2**bits - 2


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_min_max_clips_nothing_and_the_best_scale_is_never_worse(bits):
    t = rand(500)
    q = 2 ** (bits - 1) - 1
    assert float(scale_of(t, bits, "minmax")) == pytest.approx(float(t.abs().max()) / q, rel=1e-3)

    def error(method):
        return (fake_quantise(t, bits, method=method) - t).square().mean()

    assert error("best") <= error("minmax") * 1.0001
    if bits == 2:
        assert error("best") < 0.7 * error("minmax")


def test_16_bits_are_half_precision():
    t = rand(50)
    assert torch.equal(fake_quantise(t, 16), t.half().float())


@pytest.mark.parametrize("bits", BITS)
def test_quantising_twice_is_quantising_once(bits):
    once = fake_quantise(rand(300) * 0.01, bits)
    assert torch.equal(fake_quantise(once, bits), once)


@pytest.mark.parametrize("bits", BITS)
def test_more_bits_lose_less_and_zero_stays_zero(bits):
    t = torch.cat([rand(300), torch.zeros(3)])
    assert torch.all(fake_quantise(t, bits)[-3:] == 0)
    assert torch.equal(fake_quantise(torch.zeros(5), bits), torch.zeros(5))
    if bits < 16:
        finer = BITS[BITS.index(bits) - 1]
        assert (fake_quantise(t, finer) - t).norm() < (fake_quantise(t, bits) - t).norm()


@pytest.mark.parametrize("bits", BITS)
def test_the_gradient_passes_straight_through(bits):
    t = rand(20).requires_grad_()
    g = rand(20, seed=1)
    (fake_quantise(t, bits) * g).sum().backward()
    assert torch.equal(t.grad, g)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("count", [1, 2, 7, 8, 1000, 1001])
def test_packing_takes_the_bytes_it_must_and_loses_nothing(bits, count):
    codes, _ = quantise(rand(count), bits)
    packed = pack(codes, bits)
    assert packed.dtype == torch.uint8
    assert packed.numel() == packed_size_bytes(count, bits) == -(-count * bits // 8)
    assert torch.equal(unpack(packed, bits, count), codes)


def test_the_bit_order_is_fixed():
    codes = torch.tensor([0b110, 0b001, 0b101, 0b011], dtype=torch.uint8)
    # read from the right: 110, 001, 101 (its top bit opens the second byte), 011
    assert pack(codes, 3).tolist() == [0b01_001_110, 0b011_1]


def test_a_wrong_length_is_refused():
    with pytest.raises(EffbookError):
        unpack(torch.zeros(3, dtype=torch.uint8), 4, 9)


@pytest.mark.parametrize("bits", [0, 1, 5, 32, 4.0, True])
def test_other_bits_are_refused(bits):
    with pytest.raises(EffbookError, match="choose one of"):
        quantise(rand(3), bits)


@pytest.mark.parametrize("bits", BITS)
def test_what_isnt_finite_is_refused(bits):
    with pytest.raises(EffbookError):
        quantise(torch.tensor([1.0, float("nan")]), bits)


def lora():
    torch.manual_seed(0)
    model = get_peft_model(nn.Sequential(nn.Linear(6, 5)), LoraConfig(r=2, target_modules=["0"]))
    with torch.no_grad():
        model.base_model.model[0].lora_B["default"].weight.copy_(rand(5, 2))
    return model


def test_loras_matrices_are_quantised_one_scale_a_matrix():
    model = lora()
    layer = model.base_model.model[0]
    wanted = [fake_quantise(m["default"].weight.detach(), 3) for m in (layer.lora_A, layer.lora_B)]
    assert quantise_lora(model, 3) == (6 * 2 + 2 * 5) * 3 + 2 * 16
    assert torch.equal(layer.lora_A["default"].weight, wanted[0])
    assert torch.equal(layer.lora_B["default"].weight, wanted[1])
    with pytest.raises(EffbookError, match="no LoRA"):
        quantise_lora(nn.Linear(3, 3), 4)


def test_lora_trains_with_quantised_matrices_and_ends_on_them():
    model = lora()
    keys = set(get_peft_model_state_dict(model))
    train_lora_quantised(model, 3)
    x = rand(4, 6)
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for _ in range(30):
        loss = (model(x) - 1).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert min(losses[-5:]) < losses[0]
    y = model(x)
    finish_lora_quantised(model)
    torch.testing.assert_close(model(x), y)
    assert len(model.base_model.model[0].lora_B["default"].weight.unique()) <= 7
    assert set(get_peft_model_state_dict(model)) == keys
