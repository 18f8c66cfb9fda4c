"""K-means and the bytes of a scene, written from the text with loops: slow, in float64."""

import math

import numpy as np


def nearest(values, codes):
    """For each value the code at the smallest Euclidean distance."""
    found = []
    for value in np.asarray(values, np.float64):
        distances = [math.dist(value, code) for code in np.asarray(codes, np.float64)]
        found.append(int(np.argmin(distances)))
    return found


def means_of_members(values, indices, codes):
    """Each code becomes the mean of the values that use it; one that nobody uses stays."""
    values, new = np.asarray(values, np.float64), np.asarray(codes, np.float64).copy()
    for k in range(len(new)):
        members = [value for value, index in zip(values, indices, strict=True) if index == k]
        if members:
            new[k] = sum(members) / len(members)
    return new


def bits_of_index(codes):
    """The smallest number of bits that tells so many codes apart."""
    bits = 0
    while 2**bits < codes:
        bits += 1
    return bits


def bytes_of_scene(n, books, *, position_bits=32, opacity_bits=32, code_bits=32):
    """What section 3.1 keeps of N Gaussians: positions, opacities, indices but for the widest one, and the codes.

    `books` is {values a code: number of codes}. Run lengths are not counted.
    """
    kept = n * (3 * position_bits + opacity_bits)
    widths = sorted(bits_of_index(count) for _, count in books)
    indices = n * sum(widths[:-1])
    codes = sum(values * count * code_bits for values, count in books)
    return (kept + indices + codes) / 8
