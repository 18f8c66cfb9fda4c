"""Slow readers of .spz, SOG and compressed.ply, from their descriptions, a Gaussian and a number at a time.

Each gives a list of dictionaries with the six parameters as plain lists of numbers; opacities are shares, not logits.
"""

import gzip
import io
import json
import math
import struct
import zipfile

import zstandard
from PIL import Image

C0 = 0.5 / math.sqrt(math.pi)


def rotation_of(largest, three):
    """The four numbers of which three are given in order, and the largest is found from their length of 1."""
    found = list(three)
    found.insert(largest, math.sqrt(max(0.0, 1 - sum(part * part for part in three))))
    return found


def spz(raw):
    """Versions 1 to 4; nothing is turned."""
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    magic, version, n, degree, fraction, _, streams = struct.unpack_from("<4sIIBBBB", raw)
    assert magic == b"NGSP"
    bands = [0, 3, 8, 15, 24][degree]
    each = [6 if version == 1 else 9, 1, 3, 3, 3 if version < 3 else 4, 3 * bands]
    if version == 4:
        (table,) = struct.unpack_from("<I", raw, 16)
        at, parts = table + 16 * streams, []
        for i in range(streams):
            length, whole = struct.unpack_from("<QQ", raw, table + 16 * i)
            parts.append(zstandard.ZstdDecompressor().decompress(raw[at : at + length], max_output_size=whole))
            at += length
        parts += [b""] * (6 - streams)
    else:
        parts, at = [], 16
        for size in each:
            parts.append(raw[at : at + n * size])
            at += n * size
    found = []
    for i in range(n):
        place, alpha, colour, scale, turn, rest = (
            p[i * size : (i + 1) * size] for p, size in zip(parts, each, strict=True)
        )
        if version == 1:
            means = list(struct.unpack("<3e", place))
        else:
            means = [int.from_bytes(place[3 * j : 3 * j + 3], "little", signed=True) / 2**fraction for j in range(3)]
        if version < 3:
            xyz = [part / 127.5 - 1 for part in turn]
            w = math.sqrt(max(0.0, 1 - sum(part * part for part in xyz)))
            length = math.sqrt(w * w + sum(part * part for part in xyz))
            rotations = [part / length for part in (w, *xyz)]
        else:
            word = int.from_bytes(turn, "little")
            three = []
            for shift in (20, 10, 0):
                bits = word >> shift & 1023
                size = (bits & 511) / 511 * math.sqrt(0.5)
                three.append(-size if bits & 512 else size)
            x, y, z, w = rotation_of(word >> 30, three)
            rotations = [w, x, y, z]
        found.append(
            {
                "means": means,
                "opacity": alpha[0] / 255,
                "sh_dc": [(part / 255 - 0.5) / 0.15 for part in colour],
                "scales": [part / 16 - 10 for part in scale],
                "rotations": rotations,
                "sh_rest": [[(rest[3 * k + c] - 128) / 128 for c in range(3)] for k in range(bands)],
            }
        )
    return found


def sog(raw):
    """Both versions, from an archive."""
    archive = zipfile.ZipFile(io.BytesIO(raw))
    meta = json.loads(archive.read("meta.json"))
    second = meta.get("version") == 2
    n = meta["count"] if second else meta["means"]["shape"][0]

    def pixel(name, x, y):
        return Image.open(io.BytesIO(archive.read(name))).convert("RGBA").getpixel((x, y))

    width = Image.open(io.BytesIO(archive.read(meta["means"]["files"][0]))).width

    def number(part, byte, i):
        if second:
            return part["codebook"][byte]
        low, high = part["mins"], part["maxs"]
        low, high = (low[i], high[i]) if isinstance(low, list) else (low, high)
        return low + byte / 255 * (high - low)

    found = []
    for i in range(n):
        x, y = i % width, i // width
        low, high = (pixel(name, x, y) for name in meta["means"]["files"])
        means = []
        for j in range(3):
            share = (high[j] * 256 + low[j]) / 65535
            log = meta["means"]["mins"][j] + share * (meta["means"]["maxs"][j] - meta["means"]["mins"][j])
            means.append(math.copysign(math.exp(abs(log)) - 1, log))
        turn = pixel(meta["quats"]["files"][0], x, y)
        three = [(part / 255 - 0.5) * math.sqrt(2) for part in turn[:3]]
        colour = pixel(meta["sh0"]["files"][0], x, y)
        opacity = colour[3] / 255 if second else 1 / (1 + math.exp(-number(meta["sh0"], colour[3], 3)))
        scale = pixel(meta["scales"]["files"][0], x, y)
        rest = []
        if "shN" in meta:
            centroids, labels = meta["shN"]["files"]
            red, green, *_ = pixel(labels, x, y)
            label = red + 256 * green
            bands = Image.open(io.BytesIO(archive.read(centroids))).width // 64
            for k in range(bands):
                entry = pixel(centroids, label % 64 * bands + k, label // 64)
                rest.append([number(meta["shN"], entry[c], 0) for c in range(3)])
        found.append(
            {
                "means": means,
                "opacity": opacity,
                "sh_dc": [number(meta["sh0"], colour[j], j) for j in range(3)],
                "scales": [number(meta["scales"], scale[j], j) for j in range(3)],
                "rotations": rotation_of(turn[3] - 252, three),
                "sh_rest": rest,
            }
        )
    return found


def compressed_ply(chunks, words, rest):
    """From rows: chunks of 12 or 18 floats, vertices of 4 words, harmonics of bytes (or None)."""
    found = []
    for i, (position, turn, scale, colour) in enumerate(words):
        ends = list(chunks[i // 256])

        def three(word, low, high):
            shares = [(word >> 21 & 2047) / 2047, (word >> 11 & 1023) / 1023, (word & 2047) / 2047]
            return [a + share * (b - a) for a, b, share in zip(low, high, shares, strict=True)]

        rgba = [(colour >> shift & 255) / 255 for shift in (24, 16, 8, 0)]
        if len(ends) == 18:
            rgba[:3] = [a + s * (b - a) for a, b, s in zip(ends[12:15], ends[15:18], rgba[:3], strict=True)]
        parts = [((turn >> shift & 1023) / 1023 - 0.5) * math.sqrt(2) for shift in (20, 10, 0)]
        numbers = []
        for byte in () if rest is None else rest[i]:
            share = 0.0 if byte == 0 else 1.0 if byte == 255 else (byte + 0.5) / 256
            numbers.append((share - 0.5) * 8)
        bands = len(numbers) // 3
        found.append(
            {
                "means": three(position, ends[0:3], ends[3:6]),
                "opacity": rgba[3],
                "sh_dc": [(part - 0.5) / C0 for part in rgba[:3]],
                "scales": three(scale, ends[6:9], ends[9:12]),
                "rotations": rotation_of(turn >> 30, parts),
                "sh_rest": [[numbers[c * bands + k] for c in range(3)] for k in range(bands)],
            }
        )
    return found
