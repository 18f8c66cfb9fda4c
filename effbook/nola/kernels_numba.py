"""The CPU engine: generation fused with the sum, in numba, over tiles of blocks small enough for the cache.

Threads are plain Python threads around code that releases the lock, as many as torch uses. So there is no second
thread pool that dies in a forked data loader, and `torch.set_num_threads` rules here too. Every tile (or basis index)
is summed by one thread in a fixed order: the number of threads changes no bit.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numba import njit
from torch import Tensor

from effbook.nola.philox import KEY_STEPS, MASK, MULTIPLIERS

_M0, _M1 = (np.uint64(m) for m in MULTIPLIERS)
_W0, _W1 = (np.uint64(w) for w in KEY_STEPS)
_MASK, _32, _8 = np.uint64(MASK), np.uint64(32), np.uint64(8)
_HALF, _UNIT = np.int32(2**23), np.float32(2.0**-23)
_TILE = 1024  # blocks of four entries: 16 KiB of sums
_SMALL = 2**20  # entries under which a second thread costs more than it saves


@njit(inline="always")
def _block(q, i, stream, k0, k1):
    c0, c1, c2, c3 = q & _MASK, q >> _32, i, stream
    for _ in range(10):
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1 & _MASK, (p0 >> _32) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


@njit(inline="always")
def _entry(x, bound):
    return (np.float32(np.int32(x >> _8) - _HALF) * _UNIT) * bound


@njit(nogil=True, cache=True)
def _generate(out, first, last, start, stream, k0, k1, bound):
    """Fill matrices first..last-1 of out [I, N], which begins with matrix `start`."""
    entries = np.uint64(out.shape[1])
    for row in range(first, last):
        i, line = np.uint64(start + row), out[row]
        for q in range(entries // np.uint64(4)):
            x0, x1, x2, x3 = _block(q, i, stream, k0, k1)
            e = q * np.uint64(4)
            line[e] = _entry(x0, bound)
            line[e + np.uint64(1)] = _entry(x1, bound)
            line[e + np.uint64(2)] = _entry(x2, bound)
            line[e + np.uint64(3)] = _entry(x3, bound)
        q = entries // np.uint64(4)
        rest = _block(q, i, stream, k0, k1)
        for w in range(entries % np.uint64(4)):
            line[q * np.uint64(4) + w] = _entry(rest[w], bound)


@njit(nogil=True, cache=True)
def _combine(s0, s1, s2, s3, first, last, coefficients, stream, k0, k1, bound):
    """Add sum_i c_i A_i to blocks first..last-1; s_w [Q] holds word w of every block."""
    for low in range(first, last, _TILE):
        high = min(low + _TILE, last)
        for index in range(coefficients.shape[0]):
            c, i = coefficients[index], np.uint64(index)
            for q in range(np.uint64(low), np.uint64(high)):
                x0, x1, x2, x3 = _block(q, i, stream, k0, k1)
                s0[q] += c * _entry(x0, bound)
                s1[q] += c * _entry(x1, bound)
                s2[q] += c * _entry(x2, bound)
                s3[q] += c * _entry(x3, bound)


@njit(nogil=True, cache=True)
def _contract(products, first, last, g0, g1, g2, g3, stream, k0, k1, bound):
    """Write <G, A_i> for i in first..last-1; g_w [Q] holds word w's gradients of every block."""
    blocks = g0.shape[0]
    lanes = np.zeros(min(_TILE, blocks), g0.dtype)
    for index in range(first, last):
        i = np.uint64(index)
        lanes[:] = 0
        for low in range(0, blocks, _TILE):
            for lane in range(np.uint64(min(_TILE, blocks - low))):
                q = np.uint64(low) + lane
                x0, x1, x2, x3 = _block(q, i, stream, k0, k1)
                lanes[lane] += (g0[q] * _entry(x0, bound) + g1[q] * _entry(x1, bound)) + (
                    g2[q] * _entry(x2, bound) + g3[q] * _entry(x3, bound)
                )
        products[index] = lanes.sum()


def generate(basis, start: int, stop: int, *, device: torch.device) -> Tensor:
    """See `effbook.nola.kernels`."""
    made = torch.empty(stop - start, basis.numel)
    _share(lambda low, high: _generate(made.numpy(), low, high, start, *_key(basis)), stop - start, basis.numel)
    return made


def combine(coefficients: Tensor, basis, *, chunk: int) -> Tensor:
    """See `effbook.nola.kernels`."""
    blocks = (basis.numel + 3) // 4
    sums = torch.zeros(4, blocks, dtype=coefficients.dtype)  # word-major, so that neighbours in a loop are neighbours
    c = coefficients.contiguous().numpy()
    _share(lambda low, high: _combine(*sums.numpy(), low, high, c, *_key(basis)), blocks, 4 * basis.count)
    return sums.T.reshape(-1)[: basis.numel]


def contract(grad: Tensor, basis, *, chunk: int) -> Tensor:
    """See `effbook.nola.kernels`."""
    padded = torch.nn.functional.pad(grad, (0, -basis.numel % 4))
    words = padded.view(-1, 4).T.contiguous().numpy()
    products = torch.empty(basis.count, dtype=grad.dtype)
    _share(lambda low, high: _contract(products.numpy(), low, high, *words, *_key(basis)), basis.count, basis.numel)
    return products


def _key(basis) -> tuple:
    """The generator's arguments: stream, seed's low and high word, bound."""
    return np.uint64(basis.stream), np.uint64(basis.seed & MASK), np.uint64(basis.seed >> 32), np.float32(basis.bound)


def _share(work, items: int, entries_each: int) -> None:
    """Call work(low, high) on shares of range(items), in as many threads as torch uses."""
    threads = 1 if items * entries_each < _SMALL else min(items, torch.get_num_threads())
    edges = [items * t // threads for t in range(threads + 1)]
    if threads == 1:
        return work(0, items)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, edges[:-1], edges[1:]))
