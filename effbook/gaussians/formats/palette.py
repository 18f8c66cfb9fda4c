"""Codebooks for SOG: 256 numbers for many, and a palette of thousands of vectors, both in seconds on one core."""

import numpy as np

LLOYD = 8  # rounds of means and assignment
LLOYD_ON_LINE = 50
AT_ONCE = 1 << 23  # distances; where there would be more, vectors are parted first
PARTS = 64
SAMPLE = 100  # vectors a part from which the parts are found


def line_codebook(values: np.ndarray, count: int = 256) -> np.ndarray:
    """`count` ascending numbers near those of `values` [N], by K-means on the line; exact where they suffice.

    They start as dense as the cube root of the values' density, which is best for many codes, and so reach outliers.
    """
    ascending = np.sort(np.asarray(values, np.float64).ravel())
    different = np.unique(ascending)
    if len(different) <= count:
        return np.concatenate([different, np.full(count - len(different), different[-1])]).astype(np.float32)
    often, edges = np.histogram(ascending, count)
    grown = np.concatenate([[0.0], np.cumsum(np.cbrt(often))])
    codes = np.interp((np.arange(count) + 0.5) / count * grown[-1], grown, edges)
    sums = np.concatenate([[0.0], np.cumsum(ascending)])
    for _ in range(LLOYD_ON_LINE):
        ends = np.searchsorted(ascending, (codes[1:] + codes[:-1]) / 2)
        starts, ends = np.concatenate([[0], ends]), np.concatenate([ends, [len(ascending)]])
        members = ends - starts
        codes = np.where(members > 0, (sums[ends] - sums[starts]) / np.maximum(members, 1), codes)
    return codes.astype(np.float32)


def nearest_on_line(values: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """The index of the nearest of ascending numbers, uint8, in the shape of the values."""
    middles = (codebook[1:].astype(np.float64) + codebook[:-1]) / 2
    return np.searchsorted(middles, values).astype(np.uint8)


def palette(vectors: np.ndarray, count: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """At most `count` vectors near those given [N, D], and which one each of those uses [N].

    Exact where they suffice. Else a tree: the vectors are parted by K-means, each part has its share of the codes, and
    large parts are parted again, so that no distance between things that are far apart is computed.
    """
    different, index = np.unique(np.ascontiguousarray(vectors, np.float32), axis=0, return_inverse=True)
    index = index.ravel()
    if len(different) <= count:
        return different, index
    codes, of = _tree(different, count, np.random.default_rng(seed))
    return codes, of[index]


def _tree(points: np.ndarray, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Codes and assignment of different points, more than `count`."""
    n = len(points)
    if n * count <= AT_ONCE:
        return _lloyd(points, points[generator.choice(n, count, replace=False)])
    parts = min(PARTS, count)
    some = points[generator.choice(n, min(n, SAMPLE * parts), replace=False)]
    centres, _ = _lloyd(some, some[:parts])
    of = _nearest(points, centres)
    if np.bincount(of, minlength=parts).max() == n:  # too near to each other to be told apart
        of = np.arange(n) * parts // n
    members = [np.flatnonzero(of == part) for part in range(parts)]
    members = [one for one in members if len(one)]
    codes, index, done, left = [], np.empty(n, np.int64), 0, n
    for i, one in enumerate(members):  # shares that add up to the count at most, at least one each
        share = max(1, round((count - done) * len(one) / left))
        share = min(share, len(one), count - done - (len(members) - 1 - i))
        left -= len(one)
        if share == len(one):
            found, inside = points[one], np.arange(len(one))
        else:
            found, inside = _tree(points[one], share, generator)
        codes.append(found)
        index[one] = inside + done
        done += len(found)
    return np.concatenate(codes), index


def _lloyd(points: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    of = _nearest(points, codes)
    for _ in range(LLOYD):
        often = np.bincount(of, minlength=len(codes))
        sums = np.stack([np.bincount(of, column, len(codes)) for column in points.T], axis=1)
        codes = np.where(often[:, None] > 0, sums / np.maximum(often, 1)[:, None], codes).astype(np.float32)
        before, of = of, _nearest(points, codes)
        if (before == of).all():
            break
    return codes, of


def _nearest(points: np.ndarray, codes: np.ndarray) -> np.ndarray:
    middle = codes.mean(0)
    codes, half = codes - middle, None
    half = 0.5 * (codes * codes).sum(1)
    rows = max(1, AT_ONCE // len(codes))
    return np.concatenate(
        [(half - (points[i : i + rows] - middle) @ codes.T).argmin(1) for i in range(0, len(points), rows)]
    )
