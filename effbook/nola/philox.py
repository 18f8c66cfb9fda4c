"""Philox4x32-10: random numbers as a function of where they stand, not of when they were drawn.

Ordinary generators carry a state: what they give depends on everything drawn before, on the device and on the number
type. A counter-based generator is a keyed mixing function. Ask it for number 17 of stream 3 and it answers, whatever
was asked earlier. So a basis needs no storage and is the same everywhere.

The format (a promise: a checkpoint that holds a seed and coefficients means these bits for ever):

1. The key is the 64-bit seed: word 0 its low half, word 1 its high half.
2. Entry e (row-major) of basis matrix i in stream s is output word ``e % 4`` of the block with the counter
   ``(q mod 2**32, q // 2**32, i, s)`` where ``q = e // 4``.
3. An output word x becomes ``u = (x >> 8) * 2**-23 - 1``, one of 2**24 evenly spaced numbers in [-1, 1), all exactly
   representable in float32.
4. The entry is ``u * float32(bound)``, rounded once to float32 (to nearest, ties to even). Other number types are
   made from this one by casting.

`words` and `entries` below are the definition, in plain torch. The engines for CPU and CUDA give the same bits.

Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011; the order of words is that
of Random123's ``philox4x32`` and of ``triton.language.philox``.
"""

import torch
from torch import Tensor

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)  # the golden ratio and sqrt(3) - 1, in 32 bits
ROUNDS = 10
MASK = 0xFFFFFFFF


def words(counter: tuple[Tensor, Tensor, Tensor, Tensor], seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mix four counter words under a 64-bit seed into four output words.

    Each of the four is an int64 tensor of values in [0, 2**32), of shapes that broadcast; so are the results.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = seed & MASK, seed >> 32
    for _ in range(ROUNDS):
        high0, low0 = _multiply(c0, MULTIPLIERS[0])
        high1, low1 = _multiply(c2, MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + KEY_STEPS[0]) & MASK, (k1 + KEY_STEPS[1]) & MASK
    return c0, c1, c2, c3


def entries(*, seed: int, stream: int, start: int, stop: int, first: int, last: int, bound: float, device) -> Tensor:
    """Return entries first..last-1 of basis matrices start..stop-1 as float32 [stop - start, last - first]."""
    q = torch.arange(first // 4, (last + 3) // 4, device=device)  # [Q], each block holds four entries
    i = torch.arange(start, stop, device=device)[:, None]  # [I, 1]
    block = words((q & MASK, q >> 32, i, torch.full_like(i, stream)), seed)
    x = torch.stack(torch.broadcast_tensors(*block), dim=-1).flatten(1)  # [I, 4 Q]
    x = x[:, first % 4 : first % 4 + last - first]
    u = ((x >> 8) - 2**23).to(torch.float32) * 2**-23  # exact: at most 24 significant bits
    return u * torch.tensor(bound, dtype=torch.float32, device=device)


def _multiply(a: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """Return the high and the low 32 bits of a * m, in halves of 16 bits so that int64 never overflows."""
    upper, lower = (a >> 16) * m, (a & 0xFFFF) * m  # a * m = upper * 2**16 + lower
    return (upper + (lower >> 16)) >> 16, ((upper << 16) + lower) & MASK
