"""The CUDA engine: generation fused with the sum in Triton, so that the basis lives in registers only.

One program owns a tile of blocks of four entries. `combine` splits the basis index too when the matrices are small,
`contract` splits the entries when they are many; a second, ordinary sum adds the parts up. No atomics: the order of
every sum, and so its bits, is the same in every run. The number of programs is bounded, and so is the memory of parts.

With TRITON_INTERPRET=1 in the environment the same kernels run on CPU tensors; the tests do that.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

DEVICE = "cuda"  # only runs on such a device have this module in their fingerprint
BLOCK = 128  # blocks of four entries in a tile
PROGRAMS = 2048  # enough to fill any card of today several times over
_FIXED = {"BLOCK": BLOCK, "enable_fp_fusion": True}  # c * entry + sum may be one instruction; an entry has no sum in it


@triton.jit
def _entries(q, i, stream, seed_low, seed_high, bound):
    """Return the four entries of blocks q [BLOCK] (int64) of matrix i, as float32."""
    low = seed_low.to(tl.uint32, bitcast=True).to(tl.uint64)
    high = seed_high.to(tl.uint32, bitcast=True).to(tl.uint64)
    zero = tl.zeros_like(q).to(tl.uint32)
    x0, x1, x2, x3 = tl.philox(
        low | (high << 32),
        q.to(tl.uint32),
        (q >> 32).to(tl.uint32),
        zero + tl.cast(i, tl.uint32),
        zero + tl.cast(stream, tl.uint32, bitcast=True),
    )
    return _entry(x0, bound), _entry(x1, bound), _entry(x2, bound), _entry(x3, bound)


@triton.jit
def _entry(x, bound):
    return ((x >> 8).to(tl.int32) - 8388608).to(tl.float32) * 1.1920928955078125e-07 * bound  # 2**23, 2**-23


@triton.jit
def _interleave(w0, w1, w2, w3):
    """Put the four words of every block side by side, [4 * BLOCK]."""
    return tl.interleave(tl.interleave(w0, w2), tl.interleave(w1, w3))


@triton.jit(do_not_specialize=["start", "stream", "seed_low", "seed_high"])
def _generate(out, numel, start, stream, seed_low, seed_high, bound, BLOCK: tl.constexpr):
    tile, row = tl.program_id(0).to(tl.int64), tl.program_id(1)
    q = tile * BLOCK + tl.arange(0, BLOCK)
    made = _interleave(*_entries(q, start + row, stream, seed_low, seed_high, bound))
    e = tile * (4 * BLOCK) + tl.arange(0, 4 * BLOCK)
    tl.store(out + row.to(tl.int64) * numel + e, made, mask=e < numel)


@triton.jit(do_not_specialize=["stream", "seed_low", "seed_high"])
def _combine(
    parts,
    coefficients,
    numel,
    count,
    share,
    stream,
    seed_low,
    seed_high,
    bound,
    DTYPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write parts[s] = sum of c_i A_i over the share s of the indices, parts [shares, numel]."""
    tile, s = tl.program_id(0).to(tl.int64), tl.program_id(1)
    q = tile * BLOCK + tl.arange(0, BLOCK)
    s0 = tl.zeros([BLOCK], DTYPE)
    s1 = tl.zeros([BLOCK], DTYPE)
    s2 = tl.zeros([BLOCK], DTYPE)
    s3 = tl.zeros([BLOCK], DTYPE)
    for i in range(s * share, tl.minimum((s + 1) * share, count)):
        c = tl.load(coefficients + i)
        a0, a1, a2, a3 = _entries(q, i, stream, seed_low, seed_high, bound)
        s0 += c * a0
        s1 += c * a1
        s2 += c * a2
        s3 += c * a3
    e = tile * (4 * BLOCK) + tl.arange(0, 4 * BLOCK)
    tl.store(parts + s.to(tl.int64) * numel + e, _interleave(s0, s1, s2, s3), mask=e < numel)


@triton.jit(do_not_specialize=["stream", "seed_low", "seed_high"])
def _contract(
    parts, grad, numel, count, share, stream, seed_low, seed_high, bound, DTYPE: tl.constexpr, BLOCK: tl.constexpr
):
    """Write parts[s, i] = <G, A_i> over the share s of the tiles, parts [shares, count]."""
    i, s = tl.program_id(0), tl.program_id(1)
    lanes = tl.zeros([BLOCK], DTYPE)
    for tile in range(s * share, tl.minimum((s + 1) * share, tl.cdiv(numel, 4 * BLOCK))):
        q = tl.cast(tile, tl.int64) * BLOCK + tl.arange(0, BLOCK)
        a0, a1, a2, a3 = _entries(q, i, stream, seed_low, seed_high, bound)
        e = 4 * q
        lanes += tl.load(grad + e, mask=e < numel, other=0.0) * a0
        lanes += tl.load(grad + e + 1, mask=e + 1 < numel, other=0.0) * a1
        lanes += tl.load(grad + e + 2, mask=e + 2 < numel, other=0.0) * a2
        lanes += tl.load(grad + e + 3, mask=e + 3 < numel, other=0.0) * a3
    tl.store(parts + s.to(tl.int64) * count + i, tl.sum(lanes))


def generate(basis, start: int, stop: int, *, device: torch.device) -> Tensor:
    """See `effbook.nola.kernels`."""
    made = torch.empty(stop - start, basis.numel, device=device)
    rows = 2**15  # a launch's second axis ends at 2**16 - 1
    with torch.cuda.device_of(made):
        for i in range(start, stop, rows):
            grid = triton.cdiv(basis.numel, 4 * BLOCK), min(rows, stop - i)
            _generate[grid](made[i - start :], basis.numel, i, *_key(basis), **_FIXED)
    return made


def combine(coefficients: Tensor, basis, *, chunk: int) -> Tensor:
    """See `effbook.nola.kernels`."""
    tiles = triton.cdiv(basis.numel, 4 * BLOCK)
    share, shares = _split(basis.count, tiles)
    parts = coefficients.new_empty(shares, basis.numel)
    sizes = basis.numel, basis.count, share
    with torch.cuda.device_of(parts):
        _combine[tiles, shares](
            parts, coefficients.contiguous(), *sizes, *_key(basis), DTYPE=_TYPES[parts.dtype], **_FIXED
        )
    return parts[0] if shares == 1 else parts.sum(0)


def contract(grad: Tensor, basis, *, chunk: int) -> Tensor:
    """See `effbook.nola.kernels`."""
    share, shares = _split(triton.cdiv(basis.numel, 4 * BLOCK), basis.count)
    parts = grad.new_empty(shares, basis.count)
    sizes = basis.numel, basis.count, share
    with torch.cuda.device_of(parts):
        _contract[basis.count, shares](
            parts, grad.contiguous(), *sizes, *_key(basis), DTYPE=_TYPES[parts.dtype], **_FIXED
        )
    return parts[0] if shares == 1 else parts.sum(0)


_TYPES = {torch.float32: tl.float32, torch.float64: tl.float64}


def _split(items: int, others: int) -> tuple[int, int]:
    """Return (items in a share, shares) so that shares * others fills the card without exceeding it much."""
    share = triton.cdiv(items, max(1, min(items, PROGRAMS // others)))
    return share, triton.cdiv(items, share)


def _key(basis) -> tuple[int, int, int, float]:
    """The generator's arguments; words are passed as signed 32-bit numbers so that one compiled kernel serves all."""
    signed = ((word ^ 2**31) - 2**31 for word in (basis.stream, basis.seed & 0xFFFFFFFF, basis.seed >> 32))
    return *signed, basis.bound
