"""A `.compgs` file of version 3 read slowly, from the description alone: plain integers, one number at a time."""

import json
import math
import struct
import zlib

import numpy as np
import zstandard

KINDS = ("classes", "opacities", "scales", "rotations", "cells", "offsets", "sh_dc", "sh_rest", "exact")


class RangeDecoder:
    """Intervals of a number of 32 bits and more; what has been read so far is one long integer."""

    def __init__(self, data):
        self.data = data + bytes(64)
        self.low, self.range, self.at = 0, 2**32 - 1, 4
        self.code = int.from_bytes(self.data[:4], "big")

    def take(self, starts, total_bits):
        """Which of the intervals that begin at `starts` (the last ends it) the code is in."""
        part = self.range // 2**total_bits
        found = max(i for i in range(len(starts) - 1) if self.low + part * starts[i] <= self.code)
        self.low += part * starts[found]
        self.range = part * (starts[found + 1] - starts[found])
        while self.range < 2**24:
            self.low, self.range = self.low * 256, self.range * 256
            self.code = self.code * 256 + self.data[self.at]
            self.at += 1
        return found

    def raw(self, bits):
        value = 0
        while bits:
            some = min(bits, 12)
            bits -= some
            value = value * 2**some + self.take(range(2**some + 1), some)
        return value


class Model:
    def __init__(self):
        self.starts, self.used = [1024 * j for j in range(33)], 0

    def take(self, decoder):
        token = decoder.take(self.starts, 15)
        rate = next(rate for most, rate in ((8, 3), (24, 4), (96, 5), (math.inf, 6)) if self.used < most)
        self.used += 1
        for j in range(1, 32):
            wanted = j if j <= token else j + 2**15 - 32
            self.starts[j] += (wanted - self.starts[j]) // 2**rate
        return token


def number(decoder, model):
    token = model.take(decoder)
    if token < 4:
        folded = token
    elif token < 31:
        bits = (token - 4) // 2 + 1
        folded = (2 + token % 2) * 2**bits + decoder.raw(bits)
    else:
        length = max(decoder.raw(6), 1)
        folded = 2 ** (length - 1) + decoder.raw(length - 1)
    return -(folded + 1) // 2 if folded % 2 else folded // 2


def size_of(value):
    if value == 0:
        return 0
    length = value.bit_length()
    return 4 * length + (value * 4 // 2 ** (length - 1)) % 4


def columns(data, n, steps, weights, spread):
    decoder, m = RangeDecoder(data), len(spread)
    models = {}
    usual, rows = [16 * s for s in spread], []
    for i in range(n):
        row, sizes, count = [], 0, m
        if m > 4:
            folded = number(decoder, models.setdefault(("count", min(size_of(steps[i]) // 2, 47)), Model()))
            count = -2 * folded - 1 if folded < 0 else 2 * folded
        for j in range(m):
            told = sum(weights[j][t] * rows[i - 1 - t][j] for t in range(3) if t < i)
            told += sum(w * row[k] for k, w in enumerate(weights[j][3:]) if k < j)
            row.append((told + 128) // 256)
            if j >= count:
                continue
            size, before = size_of(usual[j]), size_of(sum(spread[:j]))
            if before:
                size = (size + size_of(sizes) + size_of(spread[j]) - before + 16) // 2
            context = min(max((size - size_of(steps[i])) // 2, 0), 47)
            rest = number(decoder, models.setdefault((min(j, 3), context), Model())) * steps[i]
            row[j] += rest
            size = abs(rest) + steps[i] // 4
            usual[j] += (16 * size - usual[j]) // 16
            sizes += size
        rows.append(row)
    return rows


def step(half_octaves):
    return math.isqrt(256 * 2**half_octaves)


def sections(data):
    length = struct.unpack("<I", data[10:14])[0]
    header = json.loads(data[14 : 14 + length])
    at, found = 18 + length, []
    while at < len(data):
        size, coding = struct.unpack("<QB", data[at : at + 9])
        payload = data[at + 9 : at + 9 + size]
        assert zlib.crc32(data[at : at + 9 + size]) == struct.unpack("<I", data[at + 9 + size : at + 13 + size])[0]
        found.append(zstandard.ZstdDecompressor().decompress(payload) if coding == 1 else payload)
        at += 13 + size
    return header, found


def read(data):
    """Parameters by name, float64 [N, ...], of a file with one group of rows."""
    header, (table, *rest) = sections(data)
    n, held = header["gaussians"], dict(zip(KINDS, rest, strict=False))
    at = 0

    def take(kind, *shape):
        nonlocal at
        found = np.frombuffer(table, kind, math.prod(shape), at).reshape(shape)
        at += found.nbytes
        return found.astype(np.float64) if "f" in kind else found.astype(np.int64)

    low, cell, level, turn, place = take("<f8", 3), take("<f8", 1)[0], take("<i8", 1)[0], take("<i8", 3), take("<i8", 4)
    colours, axes = take("<f4", 3, 3), take("<f2", header["harmonics"], 45)
    told = {}
    for name, m in zip(
        ("classes", "opacities", "scales", "rotations", "sh_dc", "sh_rest"), (1, 1, 3, 3, 3, len(axes)), strict=True
    ):
        others = 0 if name == "sh_rest" else m - 1
        told[name] = (take("<f8", m), take("<f8", m), take("<i2", m, 3 + others).tolist(), take("<i4", m).tolist())

    def values(name, steps):
        rows = columns(held[name], n, steps, *told[name][2:])
        return np.array(rows, dtype=object).reshape(n, -1)

    classes = [int(c) + int(told["classes"][0][0]) for c in values("classes", [1] * n)[:, 0]]
    steps = [step(c) for c in classes]
    whole = {"opacities": values("opacities", steps), "scales": values("scales", steps)}
    mean, unit = ([round(float(v) * 2**20) for v in told["scales"][k]] for k in (0, 1))
    ln = [[min(max(mean[j] + unit[j] * row[j], -40 * 2**20), 40 * 2**20) for j in range(3)] for row in whole["scales"]]
    turns, bits = [], []
    for c, (a, b, d) in zip(classes, ln, strict=True):
        ratios = [min(max(x, 0), 6 * 2**20) // 2**12 for x in (a - b, b - d)]
        fewer = sum(int(k) * r // 256 for k, r in zip(turn[1:], ratios, strict=True))
        turns.append(step(min(max(c + int(turn[0]) - (fewer + 128) // 256, 0), 63)))
        fewer = sum(int(k) * (x // 2**12) // 256 for k, x in zip(place[1:], (a, b, d), strict=True))
        bits.append(min(max((int(level) - (256 * c + int(place[0]) - fewer) + 256) // 512, 0), 24))
    whole |= {name: values(name, s) for name, s in (("rotations", turns), ("sh_dc", steps), ("sh_rest", steps))}
    offsets = int.from_bytes(held["offsets"], "little")
    means, cells = np.zeros((n, 3)), 0
    for i, (difference,) in enumerate(columns(held["cells"], n, [1] * n, [[0, 0, 0]], [1 << 12])):
        cells += 2 * difference if difference >= 0 else -2 * difference - 1
        for axis in range(3):
            inside = sum((cells >> (3 * b + axis) & 1) << b for b in range(header["cell_bits"]))
            part = (offsets % 2 ** bits[i] + 0.5) / 2 ** bits[i]
            offsets >>= bits[i]
            means[i, axis] = low[axis] + cell * (inside + part)
    found = {k: told[k][0] + told[k][1] * whole[k].astype(np.float64) for k in whole}
    xyz = found["rotations"]
    w = np.sqrt(np.maximum(0, 1 - (xyz**2).sum(1)))
    turned = np.column_stack([w, xyz])
    y = np.minimum(found["opacities"][:, 0], -1e-12)
    parts = {
        "means": means,
        "sh_dc": found["sh_dc"] @ np.linalg.inv(colours).T,
        "sh_rest": (found["sh_rest"] @ axes).reshape(n, 15, 3),
        "opacities": np.minimum(-np.log(np.exp(-y) - 1), 20),
        "scales": found["scales"],
        "rotations": turned / np.linalg.norm(turned, axis=1, keepdims=True),
    }
    held_exactly = held["exact"]
    places, rows = struct.unpack("<II", held_exactly[:8])
    where = np.frombuffer(held_exactly, "<u4", places, 8)
    parts["means"][where] = np.frombuffer(held_exactly, "<f4", 3 * places, 8 + 4 * places).reshape(-1, 3)
    at = 8 + 16 * places
    where = np.frombuffer(held_exactly, "<u4", rows, at)
    at += 4 * rows
    for values_of in parts.values():
        count = rows * math.prod(values_of.shape[1:])
        values_of[where] = np.frombuffer(held_exactly, "<f4", count, at).reshape(rows, *values_of.shape[1:])
        at += 4 * count
    return parts
