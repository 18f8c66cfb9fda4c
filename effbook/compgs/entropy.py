"""Whole numbers in the bytes that their probabilities ask for: a range coder with models that learn as they go.

A number is predicted, and what is left of it, in steps, goes by a token and plain bits. The token's model is chosen by
how large the rest is expected to be, from the rests of Gaussians before and of the same Gaussian's columns before. All
of it is whole-number arithmetic, so that every machine decodes the same.

The range coder is the one with a carry (G. N. N. Martin, 1979; low of 32 bits, bytes out as soon as they are certain).
It is own code because the entropy coder at hand, Zstandard's, has neither contexts nor fractions of a bit.
"""

import numpy as np
from numba import njit

TOKENS = 32  # 0 to 3 as they are, then two an octave up to 2^16, and the last for what is larger
DIRECT = 4
CONTEXTS = 48  # two an octave of the size that is expected, see `_base`
TOTAL_BITS = 15
TOTAL = 1 << TOTAL_BITS
TOP = 1 << 24
RAW_BITS = 12  # at most, at once
TAPS = 3  # Gaussians before that a prediction looks at
ONE = 256  # a weight of 1
BANKS = 4  # columns have models of their own, from the fourth on in common
_STRIDE = TOKENS + 2  # of a model: cumulative frequencies, and how often it was used

_LOW, _RANGE, _CACHE, _PENDING, _AT = range(5)  # of the encoder's state; the decoder has the code in _LOW


@njit(cache=True)
def _models():
    """Fresh models, flat: those of the columns, and of how many columns are told."""
    bank = np.zeros((BANKS + 1) * CONTEXTS * _STRIDE, np.int32)
    for base in range(0, len(bank), _STRIDE):
        for j in range(TOKENS + 1):
            bank[base + j] = j * (TOTAL // TOKENS)
    return bank


@njit(cache=True)
def _learn(bank, base, token):
    """Move a model towards the token, fast at first; every token keeps a frequency of at least 1."""
    used = bank[base + TOKENS + 1]
    rate = 3 if used < 8 else 4 if used < 24 else 5 if used < 96 else 6
    if used < 96:
        bank[base + TOKENS + 1] = used + 1
    for j in range(1, TOKENS):
        target = j + (TOTAL - TOKENS if j > token else 0)
        bank[base + j] += np.int32(target - bank[base + j]) >> rate


@njit(cache=True)
def bit_length(value):
    """The number of bits of a whole number from 0 to 2^62."""
    length, shift = 0, 32
    while shift:
        if value >> shift:
            value >>= shift
            length += shift
        shift >>= 1
    return length + (1 if value else 0)


def _small_sizes() -> np.ndarray:
    sizes = [4 * v.bit_length() + ((v << 2 >> (v.bit_length() - 1)) & 3 if v else 0) for v in range(1 << 14)]
    return np.array(sizes, np.uint8)


_SIZES = _small_sizes()


@njit(cache=True)
def size_of(value):
    """4 log2 of a whole number below 2^62, whole: its length and the two bits after the first; 0 for 0."""
    if value < 1 << 14:
        return np.int64(_SIZES[value])
    if value < 1 << 26:
        return np.int64(_SIZES[value >> 12]) + 48
    if value < 1 << 38:
        return np.int64(_SIZES[value >> 24]) + 96
    if value < 1 << 50:
        return np.int64(_SIZES[value >> 36]) + 144
    return np.int64(_SIZES[min(value >> 48, (1 << 14) - 1)]) + 192


# --- the range coder -----------------------------------------------------------------------------------------------


@njit(cache=True)
def _shift(state, out):
    low = state[_LOW]
    if low < 0xFF000000 or low > 0xFFFFFFFF:
        carry = low >> 32
        if state[_AT] >= 0:
            out[state[_AT]] = (state[_CACHE] + carry) & 0xFF
        state[_AT] += 1
        while state[_PENDING] > 0:
            out[state[_AT]] = (0xFF + carry) & 0xFF
            state[_AT] += 1
            state[_PENDING] -= 1
        state[_CACHE] = (low >> 24) & 0xFF
    else:
        state[_PENDING] += 1
    state[_LOW] = (low & 0x00FFFFFF) << 8


@njit(cache=True)
def _put(state, out, start, size, bits):
    part = state[_RANGE] >> bits
    state[_LOW] += part * start
    state[_RANGE] = part * size
    while state[_RANGE] < TOP:
        state[_RANGE] <<= 8
        _shift(state, out)


@njit(cache=True)
def _next(state, data):
    at = state[_AT]
    byte = np.int64(data[at]) if at < len(data) else 0  # beyond the end are zeros; the caller looks at _AT
    state[_LOW] = (state[_LOW] << 8) | byte
    state[_AT] = at + 1


@njit(cache=True)
def _took(state, data, start, size, part):
    state[_LOW] -= part * start
    state[_RANGE] = part * size
    while state[_RANGE] < TOP:
        state[_RANGE] <<= 8
        _next(state, data)


# --- numbers as tokens ---------------------------------------------------------------------------------------------


@njit(cache=True)
def _put_number(state, out, bank, base, number):
    folded = 2 * number if number >= 0 else -2 * number - 1  # 0, -1, 1, -2, 2...
    token, left, more = folded, 0, 0
    if folded >= DIRECT:
        length = bit_length(folded)  # 3 or more
        token, left = DIRECT + 2 * (length - 3) + ((folded >> (length - 2)) & 1), length - 2
        if token >= TOKENS - 1:
            token, left, more = TOKENS - 1, length - 1, length
    _put(state, out, bank[base + token], bank[base + token + 1] - bank[base + token], TOTAL_BITS)
    _learn(bank, base, token)
    if more:
        _put(state, out, more, 1, 6)
    while left > 0:
        some = min(left, RAW_BITS)
        left -= some
        _put(state, out, (folded >> left) & ((1 << some) - 1), 1, some)


@njit(cache=True)
def _get_raw(state, data, bits):
    value = 0
    while bits > 0:
        some = min(bits, RAW_BITS)
        bits -= some
        part = state[_RANGE] >> some
        found = min(state[_LOW] // part, (1 << some) - 1)
        _took(state, data, found, 1, part)
        value = (value << some) | found
    return value


@njit(cache=True)
def _get_number(state, data, bank, base):
    part, code = state[_RANGE] >> TOTAL_BITS, state[_LOW]
    token, step = 0, TOKENS // 2
    while step:  # the last token that does not start beyond the code
        if part * bank[base + token + step] <= code:
            token += step
        step >>= 1
    _took(state, data, bank[base + token], bank[base + token + 1] - bank[base + token], part)
    _learn(bank, base, token)
    folded = token
    if token >= DIRECT:
        left = 1 + ((token - DIRECT) >> 1)
        top = 2 | (token & 1)
        if token == TOKENS - 1:
            left, top = max(0, _get_raw(state, data, 6) - 1), 1
        folded = (top << left) | _get_raw(state, data, left)
    return -((folded + 1) >> 1) if folded & 1 else folded >> 1


@njit(cache=True)
def _predicted(known, weights, i, j):
    total = 0
    for t in range(min(TAPS, i)):
        total += weights[j, t] * known[i - 1 - t, j]
    for k in range(min(j, weights.shape[1] - TAPS)):
        total += weights[j, TAPS + k] * known[i, k]
    return (total + ONE // 2) >> 8


@njit(cache=True)
def _base(usual, step_size, spread_size, sizes, spreads_size, j):
    """Where the model lies that suits column j: by the rest that is expected, against the step, in half octaves.

    Expected is what is usual in this column, and what the same Gaussian's columns before suggest.
    """
    size = size_of(usual)  # in sixteenths, so 16 more
    if spreads_size:
        size = (size + size_of(sizes) + spread_size - spreads_size + 16) >> 1
    context = min(max((size - step_size) >> 1, 0), CONTEXTS - 1)
    return (min(j, BANKS - 1) * CONTEXTS + context) * _STRIDE


@njit(cache=True)
def _base_of_count(step_size):
    """Where the model lies of how many columns are told: by the step, in half octaves."""
    return (BANKS * CONTEXTS + min(step_size >> 1, CONTEXTS - 1)) * _STRIDE


@njit(cache=True, nogil=True)
def encode(values, steps, weights, spread, dead, out):
    """Columns of whole numbers [N, M], row by row, into `out`; how many bytes, and the numbers as they are decoded.

    `steps` [N] are those of a row, `weights` [M, TAPS + others] of the numbers before in the same column and in the
    same row, `spread` [M] what is usual, `dead` how much (in 64ths of a step) rounding leans towards the prediction.
    Of more than BANKS columns, which must be predicted without others of their row, those after the last that is not as
    predicted are left out, and a row begins with how many are not.
    """
    n, m = values.shape
    known, usual, bank = np.zeros((n, m), np.int64), 16 * spread, _models()
    numbers = np.zeros(m, np.int64)
    state = np.zeros(5, np.int64)
    state[_RANGE], state[_AT] = 0xFFFFFFFF, -1  # the first byte that is shifted out says nothing
    spread_sizes, spreads_sizes = _sizes(spread)
    for i in range(n):
        step, count = steps[i], 0
        step_size = size_of(step)
        for j in range(m):
            guess = _predicted(known, weights, i, j)
            rest = values[i, j] - guess
            number = (abs(rest) * 64 + (32 - dead) * step) // (64 * step)
            if number:
                count = j + 1
            numbers[j] = number if rest > 0 else -number
            known[i, j] = guess + numbers[j] * step
        if m > BANKS:
            _put_number(state, out, bank, _base_of_count(step_size), -((count + 1) >> 1) if count & 1 else count >> 1)
        else:
            count = m
        sizes = 0
        for j in range(count):
            base = _base(usual[j], step_size, spread_sizes[j], sizes, spreads_sizes[j], j)
            _put_number(state, out, bank, base, numbers[j])
            size = abs(numbers[j]) * step + (step >> 2)
            usual[j] += (16 * size - usual[j]) >> 4
            sizes += size
    for _ in range(5):
        _shift(state, out)
    return state[_AT], known


@njit(cache=True, nogil=True)
def decode(data, n, steps, weights, spread):
    """The inverse of `encode`: numbers [N, M], and how many bytes were read."""
    m = len(spread)
    known, usual, bank = np.zeros((n, m), np.int64), 16 * spread, _models()
    state = np.zeros(5, np.int64)
    state[_RANGE] = 0xFFFFFFFF
    for _ in range(4):
        _next(state, data)
    spread_sizes, spreads_sizes = _sizes(spread)
    for i in range(n):
        step, count = steps[i], m
        step_size = size_of(step)
        if m > BANKS:
            folded = _get_number(state, data, bank, _base_of_count(step_size))
            count = min(m, -2 * folded - 1 if folded < 0 else 2 * folded)
        sizes = 0
        for j in range(count):
            base = _base(usual[j], step_size, spread_sizes[j], sizes, spreads_sizes[j], j)
            number = _get_number(state, data, bank, base)
            known[i, j] = _predicted(known, weights, i, j) + number * step
            size = abs(number) * step + (step >> 2)
            usual[j] += (16 * size - usual[j]) >> 4
            sizes += size
        for j in range(count, m):
            known[i, j] = _predicted(known, weights, i, j)
    return known, state[_AT]


@njit(cache=True)
def _sizes(spread):
    """Sizes of each column's spread, and of the sum of those before it (0 for the first)."""
    each, before, total = np.zeros(len(spread), np.int64), np.zeros(len(spread), np.int64), 0
    for j in range(len(spread)):
        each[j] = size_of(spread[j])
        before[j] = size_of(total)
        total += spread[j]
    return each, before


# --- plain bits ----------------------------------------------------------------------------------------------------


def pack_bits(numbers: np.ndarray, widths: np.ndarray) -> bytes:
    """Numbers [N], each in so many bits, the lowest first."""
    ends = np.cumsum(widths)
    bits = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    for k in range(int(widths.max(initial=0))):
        some = widths > k
        bits[(ends - widths)[some] + k] = (numbers[some] >> k) & 1
    return np.packbits(bits, bitorder="little").tobytes()


def unpack_bits(data: bytes, widths: np.ndarray) -> np.ndarray:
    """The inverse of `pack_bits`. Raises ValueError for another number of bytes than that."""
    ends = np.cumsum(widths)
    total = int(ends[-1]) if len(ends) else 0
    if len(data) != (total + 7) // 8:
        raise ValueError(f"{len(data):,} bytes for {total:,} bits")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    numbers = np.zeros(len(widths), np.int64)
    for k in range(int(widths.max(initial=0))):
        some = widths > k
        numbers[some] |= bits[(ends - widths)[some] + k].astype(np.int64) << k
    return numbers
