"""The random basis of NOLA: a seed, a shape and a bound stand for `count` matrices that are never stored.

Equation 3.2 of the dissertation writes A = sum_i alpha_i A_i and B = sum_j beta_j B_j with frozen random A_i and B_j.
`Basis` names such a family, `generate` makes members of it, and `combine` sums them up, forward and backward, without
ever holding them. `effbook.nola.philox` fixes the bits.
"""

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from effbook.errors import EffbookError
from effbook.nola import kernels


@dataclass(frozen=True, kw_only=True)
class Basis:
    """A family of `count` random matrices [rows, cols] with entries uniform in [-bound, bound).

    An entry depends on seed, stream, its matrix and its row-major index alone. So a family of the same stream with
    fewer matrices is the beginning of this one, and a matrix of fewer entries is the beginning of a larger one.

    Raises EffbookError for a size below 1, a seed outside 64 bits or a stream outside 32 bits.
    """

    seed: int
    stream: int
    count: int
    rows: int
    cols: int
    bound: float

    def __post_init__(self) -> None:
        for field in ("count", "rows", "cols"):
            if getattr(self, field) < 1:
                raise EffbookError(f"a basis cannot have {field} = {getattr(self, field)}", f"give {field} >= 1")
        if self.count >= 2**31:
            raise EffbookError(f"a basis of {self.count} matrices outruns its 32-bit index", "give count < 2**31")
        if not 0 <= self.seed < 2**64:
            raise EffbookError(f"the seed {self.seed} is no 64-bit number", "give 0 <= seed < 2**64")
        if not 0 <= self.stream < 2**32:
            raise EffbookError(f"the stream {self.stream} is no 32-bit number", "take it from stream_of(name)")
        if not (math.isfinite(self.bound) and 1e-30 < self.bound < 1e30):
            raise EffbookError(f"a basis cannot have entries up to {self.bound}", "give a bound within 1e-30 .. 1e30")

    @property
    def numel(self) -> int:
        """The number of entries of one matrix."""
        return self.rows * self.cols


def stream_of(name: str) -> int:
    """Return the 32-bit stream of a name such as "model.layers.0.q_proj/A": its BLAKE2b digest, little-endian."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little")


def generate(
    basis: Basis,
    start: int = 0,
    stop: int | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    engine: str | None = None,
) -> Tensor:
    """Make matrices start..stop-1 of the basis, [stop - start, rows, cols].

    They are made in float32 and cast to `dtype`. `engine` is "torch", "numba" or "triton"; by default the fastest
    that serves the device. Raises EffbookError for a range outside the basis.
    """
    stop = basis.count if stop is None else stop
    if not 0 <= start <= stop <= basis.count:
        raise EffbookError(f"matrices {start}..{stop} lie outside a basis of {basis.count}", "give 0 <= start <= stop")
    device = torch.device(device)
    if device.type == "meta":
        return torch.empty(stop - start, basis.rows, basis.cols, dtype=dtype, device=device)
    chosen = kernels.engine(device, engine)
    if dtype == torch.float32:
        made = chosen.generate(basis, start, stop, device=device)
    else:  # cast piece by piece, so that no second copy of the whole exists
        made = torch.empty(stop - start, basis.numel, dtype=dtype, device=device)
        piece = max(1, 2**24 // basis.numel)
        for i in range(start, stop, piece):
            end = min(i + piece, stop)
            made[i - start : end - start] = chosen.generate(basis, i, end, device=device)
    return made.view(stop - start, basis.rows, basis.cols)


def combine(coefficients: Tensor, basis: Basis, *, chunk: int = 64, engine: str | None = None) -> Tensor:
    """Sum the basis up: sum_i c_i A_i [rows, cols] from coefficients [count], the parenthesis of Eq. 3.2.

    The basis is regenerated in the forward and again in the backward pass and never held: the memory taken does not
    grow with count. The sum runs in float64 for float64 coefficients and in float32 otherwise; the result has the
    coefficients' number type and device. `chunk` is how many matrices the plain torch engine makes at a time; the
    fused engines make none. Raises EffbookError if the number of coefficients isn't the basis's count.
    """
    if coefficients.shape != (basis.count,):
        raise EffbookError(
            f"coefficients of shape {tuple(coefficients.shape)} don't fit a basis of {basis.count} matrices",
            f"give a tensor of shape ({basis.count},)",
        )
    if chunk < 1:
        raise EffbookError(f"a chunk of {chunk} matrices never finishes", "give chunk >= 1")
    if coefficients.device.type == "meta":
        return coefficients.sum().expand(basis.rows, basis.cols)
    return _Combine.apply(coefficients, basis, chunk, engine)


class _Combine(torch.autograd.Function):
    """f(c) = sum_i c_i A_i and df/dc_i = <G, A_i>; linear, so that the backward pass needs the Basis alone."""

    @staticmethod
    def forward(ctx, coefficients: Tensor, basis: Basis, chunk: int, engine: str | None) -> Tensor:
        ctx.basis, ctx.chunk, ctx.engine, ctx.dtype = basis, chunk, engine, coefficients.dtype
        chosen = kernels.engine(coefficients.device, engine)
        total = chosen.combine(coefficients.detach().to(_accumulator(coefficients.dtype)), basis, chunk=chunk)
        return total.to(coefficients.dtype).view(basis.rows, basis.cols)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        chosen = kernels.engine(grad.device, ctx.engine)
        flat = grad.to(_accumulator(ctx.dtype)).reshape(-1)
        return chosen.contract(flat, ctx.basis, chunk=ctx.chunk).to(ctx.dtype), None, None, None


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
