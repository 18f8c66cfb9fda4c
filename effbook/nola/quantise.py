"""Quantisation of coefficients to 16, 8, 4, 3 or 2 bits: after training, or while training (section 3.2.3).

A tensor gets one scale. Sixteen bits are IEEE half precision, with no scale. For fewer bits the codes are the integers
-q..q with q = 2^(bits-1) - 1 (symmetric, zero stays zero), so two bits know three values. Two ways to choose the scale:

- `minmax`: max|t| / q, nothing is clipped;
- `best`: the fraction of it with the least squared error. At 2 bits it clips the tails of a bell-shaped tensor, where
  min-max would send two thirds of the coefficients to zero; at 8 bits both agree but for rounding.

`best` is the default. The text doesn't say how its scale was chosen.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from effbook.errors import EffbookError
from effbook.nola.config import BITS

SEARCH = 64  # candidate scales, from max|t|/q down to a tenth of it


def _check(bits: int) -> None:
    if type(bits) is not int or bits not in BITS:
        raise EffbookError(f"{bits!r} bits a coefficient", f"choose one of {BITS}")


def largest_code(bits: int) -> int:
    """q: codes run from -q to q."""
    _check(bits)
    return 2 ** (bits - 1) - 1


@torch.no_grad()
def scale_of(t: Tensor, bits: int, method: str = "best") -> Tensor:
    """The step between two codes, a float16-exact scalar (checkpoints store it as float16); 1 for an all-zero tensor.

    Raises EffbookError for an unknown method or a tensor that isn't finite.
    """
    q = largest_code(bits)
    flat = t.detach().reshape(-1).to(torch.float32)
    top = flat.abs().max() if flat.numel() else flat.new_zeros(())
    if not torch.isfinite(top):
        raise EffbookError("A tensor to be quantised holds nan or inf", "look for the step at which training diverged")
    if method not in ("best", "minmax"):
        raise EffbookError(f"No quantisation scale is called {method!r}", "choose best or minmax")
    if method == "minmax":
        candidates = (top / q)[None]
    else:
        candidates = (top / q) * torch.linspace(1.0, 0.1, SEARCH, device=flat.device)
    # Half precision on the way: the checkpoint's decoder then multiplies by the very number that was chosen here.
    candidates = candidates.to(torch.float16).to(torch.float32).clamp(min=2.0**-24)
    if top == 0:
        return torch.ones((), device=flat.device)
    if not torch.isfinite(candidates[0]):
        raise EffbookError(f"A coefficient of {float(top):.3g} is too large to be quantised", "lower the learning rate")
    block = max(1, 2**22 // flat.numel())  # bounds the memory of the search
    errors = [
        (flat.div(c[:, None]).round_().clamp_(-q, q).mul_(c[:, None]) - flat).square_().sum(dim=1)
        for c in candidates.split(block)
    ]
    return candidates[torch.cat(errors).argmin()]


@torch.no_grad()
def quantise(t: Tensor, bits: int, *, method: str = "best") -> tuple[Tensor, Tensor]:
    """Codes (uint8, or int16 bit patterns of float16 for 16 bits) of t's shape, and the scale.

    Below 16 bits a code is the integer plus q, hence 0..2q. Raises EffbookError for other bits or a non-finite t.
    """
    _check(bits)
    if bits == 16:
        half = t.detach().to(torch.float16)
        if not torch.isfinite(half).all():
            raise EffbookError("A coefficient doesn't fit in 16 bits", "look for the step at which training diverged")
        return half.contiguous().view(torch.int16), torch.ones((), device=t.device)
    q, scale = largest_code(bits), scale_of(t, bits, method)
    codes = (t.detach().to(torch.float32) / scale).round().clamp(-q, q) + q
    return codes.to(torch.uint8), scale


@torch.no_grad()
def dequantise(codes: Tensor, scale: Tensor, bits: int) -> Tensor:
    """The float32 tensor that the codes stand for."""
    _check(bits)
    if bits == 16:
        return codes.view(torch.float16).to(torch.float32)
    return (codes.to(torch.float32) - largest_code(bits)) * scale


class _StraightThrough(torch.autograd.Function):
    """Forward: the quantised value. Backward: the gradient unchanged, as if nothing had been rounded."""

    @staticmethod
    def forward(ctx, t: Tensor, bits: int, method: str) -> Tensor:
        codes, scale = quantise(t, bits, method=method)
        return dequantise(codes, scale, bits).to(t.dtype)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return gradient, None, None


def fake_quantise(t: Tensor, bits: int, *, method: str = "best") -> Tensor:
    """t rounded to what `bits` can hold, with the straight-through gradient (quantisation-aware training)."""
    _check(bits)
    return _StraightThrough.apply(t, bits, method)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes (as `quantise` gives them, any shape) as a uint8 tensor of ceil(numel * bits / 8) bytes.

    Little-endian bit order: the first code sits in the lowest bits of the first byte.
    """
    _check(bits)
    flat = codes.detach().cpu().reshape(-1)
    if bits == 16:
        return flat.contiguous().view(torch.uint8).clone()
    if bits == 8:
        return flat.clone()
    stream = np.unpackbits(flat.numpy()[:, None], axis=1, count=bits, bitorder="little")  # [N, bits]
    return torch.from_numpy(np.packbits(stream, bitorder="little"))


def packed_size_bytes(count: int, bits: int) -> int:
    """How many bytes `pack` makes of `count` codes."""
    _check(bits)
    return (count * bits + 7) // 8


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """The flat codes that `pack` was given; raises EffbookError where the length doesn't fit."""
    if packed.numel() != packed_size_bytes(count, bits):
        raise EffbookError(
            f"{count} codes of {bits} bits take {packed_size_bytes(count, bits)} bytes, not {packed.numel()}",
            "get the file again",
        )
    if bits == 16:
        return packed.contiguous().clone().view(torch.int16)
    if bits == 8:
        return packed.clone()
    stream = np.unpackbits(packed.numpy(), count=count * bits, bitorder="little").reshape(count, bits)
    return torch.from_numpy(np.packbits(stream, axis=1, bitorder="little")[:, 0])


# LoRA's A and B beside it. Nothing of `peft` is imported: LoRA layers are known by their `lora_A` and `lora_B`.


def _lora_weights(model: nn.Module) -> list[nn.Module]:
    found = [
        module
        for layer in model.modules()
        for side in ("lora_A", "lora_B")
        if isinstance(getattr(layer, side, None), nn.ModuleDict)
        for module in getattr(layer, side).values()
    ]
    if not found:
        raise EffbookError(
            "This model has no LoRA layers", "pass the model that peft.get_peft_model gave for a LoraConfig"
        )
    return found


@torch.no_grad()
def quantise_lora(model: nn.Module, bits: int, *, method: str = "best") -> int:
    """Round every LoRA A and B of a peft model in place, one scale a matrix (post-training); returns bits in all.

    The figure counts codes and 16 bits for each scale. Raises EffbookError where the model has no LoRA layers.
    """
    total = 0
    for module in _lora_weights(model):
        module.weight.copy_(fake_quantise(module.weight, bits, method=method))
        total += module.weight.numel() * bits + (0 if bits == 16 else 16)
    return total


class _FakeQuantise(nn.Module):
    def __init__(self, bits: int, method: str) -> None:
        super().__init__()
        self.bits, self.method = bits, method

    def forward(self, weight: Tensor) -> Tensor:
        return fake_quantise(weight, self.bits, method=self.method)


def train_lora_quantised(model: nn.Module, bits: int, *, method: str = "best") -> nn.Module:
    """Quantisation-aware training of a peft model's LoRA: its A and B are rounded in every forward pass.

    Train, then call `finish_lora_quantised`, which leaves the rounded weights as plain ones, ready to be saved.
    """
    _check(bits)
    for module in _lora_weights(model):
        parametrize.register_parametrization(module, "weight", _FakeQuantise(bits, method))
    return model


def finish_lora_quantised(model: nn.Module) -> nn.Module:
    """End quantisation-aware training: A and B become what they were rounded to."""
    for module in _lora_weights(model):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    return model
