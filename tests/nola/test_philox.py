"""The generator against the published vectors and against a twin in Python integers, written from the paper."""

import hashlib

import numpy as np
import pytest
import torch

from effbook.nola import philox
from effbook.nola.basis import Basis, generate

# kat_vectors of Random123 (Salmon et al. 2011): counter, key, output of philox4x32-10
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def twin_block(counter, key):
    """Philox4x32-10 as the paper draws it: two Feistel-like halves (L, R), round keys from a Weyl sequence."""
    r0, l0, r1, l1 = counter
    for turn in range(10):
        weyl = [(key[0] + turn * 0x9E3779B9) % 2**32, (key[1] + turn * 0xBB67AE85) % 2**32]
        high0, low0 = divmod(0xD2511F53 * r0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * r1, 2**32)
        r0, l0, r1, l1 = high1 ^ weyl[0] ^ l0, low1, high0 ^ weyl[1] ^ l1, low0
    return r0, l0, r1, l1


def twin_entry(seed, stream, i, e, bound):
    """Entry e of matrix i, in Python integers and doubles; the product of two float32 is exact in a double."""
    counter = (e // 4) % 2**32, (e // 4) // 2**32, i, stream
    x = twin_block(counter, (seed % 2**32, seed // 2**32))[e % 4]
    return np.float32(((x // 256) / 2**23 - 1) * float(np.float32(bound)))


def hexadecimal(text):
    return tuple(int(word, 16) for word in text.split())


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN_ANSWERS)
def test_the_published_vectors_come_out(counter, key, output):
    low, high = hexadecimal(key)
    block = philox.words(tuple(torch.tensor(word) for word in hexadecimal(counter)), low + (high << 32))
    assert tuple(int(word) for word in block) == hexadecimal(output)
    assert twin_block(hexadecimal(counter), (low, high)) == hexadecimal(output)


def test_words_agree_with_the_twin_on_many_counters():
    draw = torch.Generator().manual_seed(1)
    counters = torch.randint(0, 2**32, (50, 4), generator=draw)
    for seed in (0, 1, 2**32, 0xDEADBEEF12345678, 2**64 - 1):
        block = torch.stack(philox.words(tuple(counters.T), seed), dim=1)
        expected = [twin_block(tuple(row), (seed % 2**32, seed // 2**32)) for row in counters.tolist()]
        assert block.tolist() == [list(row) for row in expected]


@pytest.mark.parametrize("engine", ["torch", "numba"])
@pytest.mark.parametrize(("seed", "stream", "bound"), [(0, 0, 1.0), (2**64 - 1, 2**32 - 1, 0.1), (7, 3, 1000**-0.5)])
def test_entries_are_the_twins_bit_for_bit(engine, seed, stream, bound):
    basis = Basis(seed=seed, stream=stream, count=3, rows=5, cols=7, bound=bound)
    made = generate(basis, engine=engine).view(3, -1).numpy()
    expected = [[twin_entry(seed, stream, i, e, bound) for e in range(35)] for i in range(3)]
    assert made.tobytes() == np.array(expected, dtype=np.float32).tobytes()


def test_entries_beyond_32_bits_of_blocks_use_the_second_counter_word():
    first = 4 * 2**32 + 5
    made = philox.entries(seed=9, stream=2, start=1, stop=2, first=first, last=first + 6, bound=0.3, device="cpu")
    assert made[0].tolist() == [twin_entry(9, 2, 1, first + j, 0.3) for j in range(6)]


def test_the_format_never_changes():
    basis = Basis(seed=2024, stream=0xC0FFEE, count=4, rows=64, cols=33, bound=0.05)
    digest = hashlib.sha256(generate(basis).numpy().astype("<f4").tobytes()).hexdigest()
    assert digest == "95d7f46c8cb0d207726d6339f26c3fda2ffccc25636d35bbbad3d51d850654bd"


def test_entries_are_uniform_and_uncorrelated():
    basis = Basis(seed=5, stream=1, count=2, rows=512, cols=512, bound=1.0)
    other = Basis(seed=5, stream=2, count=1, rows=512, cols=512, bound=1.0)
    flat = torch.cat([generate(basis), generate(other)]).view(3, -1).double()
    assert flat.min() >= -1
    assert flat.max() < 1
    n = flat.shape[1]
    cells = torch.stack([torch.histc(row, bins=64, min=-1, max=1) for row in flat])
    chi_squared = ((cells - n / 64) ** 2 / (n / 64)).sum(1)  # 63 degrees of freedom: 63 +- 11
    assert (chi_squared < 63 + 5 * 11.3).all()
    correlation = torch.corrcoef(torch.cat([flat, flat.roll(1, dims=1)]))
    off_diagonal = correlation[~torch.eye(6, dtype=torch.bool)]
    assert off_diagonal.abs().max() < 5 / n**0.5
