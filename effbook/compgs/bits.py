"""Whole numbers in as few bits as they need, and whole numbers in place of floats (absmax quantisation).

Packing is own code because it is faster: numpy's `packbits` and `unpackbits` lay a million numbers of 14 bits out as 14
million bytes in between, and take 3 times as long to pack and 25 times as long to unpack.
"""

import numpy as np
from numba import njit

from effbook.errors import EffbookError


def bits_for(count: int) -> int:
    """Bits that tell `count` things apart: 12 for 4096, 0 for one."""
    return (count - 1).bit_length()


def packed_bytes(n: int, bits: int) -> int:
    """Bytes of n numbers of so many bits."""
    return (n * bits + 7) // 8


def pack(numbers: np.ndarray, bits: int) -> np.ndarray:
    """Numbers [N] below 2^bits, at most 32 bits each, into bytes, the lowest bits first."""
    if bits == 0:
        return np.zeros(0, np.uint8)
    if bits in (8, 16, 32):
        return numbers.astype(f"<u{bits // 8}", copy=False).view(np.uint8)
    return _pack(numbers.astype(np.uint64), bits, packed_bytes(len(numbers), bits))


def unpack(data: np.ndarray, n: int, bits: int) -> np.ndarray:
    """The inverse of `pack`: bytes [packed_bytes(n, bits)] to uint32 [n]."""
    if bits == 0:
        return np.zeros(n, np.uint32)
    if bits in (8, 16, 32):
        return data.view(f"<u{bits // 8}").astype(np.uint32)
    return _unpack(data, n, bits)


@njit(cache=True)
def _pack(numbers, bits, size):
    out = np.empty(size, np.uint8)
    held, filled, at = np.uint64(0), np.uint64(0), 0
    for i in range(len(numbers)):
        held |= numbers[i] << filled
        filled += np.uint64(bits)
        while filled >= 8:
            out[at] = held & np.uint64(0xFF)
            held >>= np.uint64(8)
            filled -= np.uint64(8)
            at += 1
    if at < size:
        out[at] = held & np.uint64(0xFF)
    return out


@njit(cache=True)
def _unpack(data, n, bits):
    out = np.empty(n, np.uint32)
    mask = (np.uint64(1) << np.uint64(bits)) - np.uint64(1)
    held, filled, at = np.uint64(0), np.uint64(0), 0
    for i in range(n):
        while filled < bits:
            held |= np.uint64(data[at]) << filled
            filled += np.uint64(8)
            at += 1
        out[i] = held & mask
        held >>= np.uint64(bits)
        filled -= np.uint64(bits)
    return out


@njit(cache=True)
def counted(keys, count):
    """How often each number below `count` occurs among the keys [N], int64 [count]; all keys must be below it."""
    often = np.zeros(count, np.int64)
    for key in keys:
        often[key] += 1
    return often


@njit(cache=True)
def sorted_by(keys, starts, rows):
    """The rows [N] ordered by their keys [N], stable: those of key k from starts[k] on (starts [K]). 4 bytes a row."""
    found, at = np.empty(len(rows), np.uint32), starts.copy()
    for row in rows:
        key = keys[row]
        found[at[key]] = row
        at[key] += 1
    return found


def absmax(values: np.ndarray, bits: int) -> tuple[np.ndarray, float]:
    """Absmax quantisation ("Int-16/8/4", section 3.1.4): whole numbers from -m to m, m = 2^(bits-1) - 1, and the step.

    values [...] ~ step x (numbers - m); the numbers are stored from 0 on. Raises EffbookError for a value that is not
    finite.
    """
    most = 2 ** (bits - 1) - 1
    peak = float(np.abs(values).max(initial=0.0))
    if not np.isfinite(peak):
        raise EffbookError("the model has values that are not finite", "train it again")
    step = peak / most if peak > 0 else 1.0
    return (np.rint(values.astype(np.float64) / step).astype(np.int64) + most).astype(np.uint32), step


def from_absmax(numbers: np.ndarray, step: float, bits: int) -> np.ndarray:
    """The inverse of `absmax`, as float32 [...]."""
    return ((numbers.astype(np.float64) - (2 ** (bits - 1) - 1)) * step).astype(np.float32)
