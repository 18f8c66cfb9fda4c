"""The CPU engine: alpha-blending of ellipses in tiles of 16 x 16 pixels, forward and by hand backward, in numba.

C = sum_i c_i a_i prod_{j<i} (1 - a_j) (section 3.1.3), nearest first, with a_i = min(0.999, o_i exp(-q_i)) and
q_i = (A dx^2 + C dy^2) / 2 + B dx dy. A pixel skips a_i below 1 / 255 and stops before the light left falls to 1e-4.

Within a tile the loop runs over Gaussians and, inside, over the rows of each one's box, so that the work is in
proportion to what is drawn. The innermost loop runs over a whole row of the tile: of fixed length, without branches and
with one buffer, so that the compiler turns it into vector instructions; conditions become factors 0 or 1. Tiles run in
parallel. Gradients are summed for each pair of tile and Gaussian first and over the pairs afterwards, in a fixed order:
no result depends on the number of threads.
"""

import numpy as np
from numba import njit, prange

TILE = 16
PIXELS = TILE * TILE
LEAST_ALPHA = 1.0 / 255.0
MOST_ALPHA = 0.999
LEAST_LIGHT = 1e-4

ELLIPSES = ("means2d", "extents", "conics", "colours", "opacities")  # the order in which the kernels take them
FAST = {"contract", "arcp", "nsz", "reassoc"}


@njit(cache=True)
def bin_tiles(means2d, extents, order, width, height):
    """For each tile the splats that touch it, nearest first: offsets [tiles + 1] into splats [pairs].

    `means2d` and `extents` are [M, 2], `order` [M] sorts by depth.
    """
    across, down = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    boxes = np.empty((len(means2d), 4), np.int32)
    counts = np.zeros(across * down + 1, np.int64)
    for i in range(len(means2d)):
        boxes[i, 0] = int(np.floor(max(means2d[i, 0] - extents[i, 0], 0.0) / TILE))
        boxes[i, 1] = int(np.floor(min(means2d[i, 0] + extents[i, 0], width - 0.5) / TILE))
        boxes[i, 2] = int(np.floor(max(means2d[i, 1] - extents[i, 1], 0.0) / TILE))
        boxes[i, 3] = int(np.floor(min(means2d[i, 1] + extents[i, 1], height - 0.5) / TILE))
        for ty in range(boxes[i, 2], boxes[i, 3] + 1):
            for tx in range(boxes[i, 0], boxes[i, 1] + 1):
                counts[ty * across + tx + 1] += 1
    offsets = np.cumsum(counts)
    filled = offsets[:-1].copy()
    splats = np.empty(offsets[-1], np.int32)
    for i in order:
        for ty in range(boxes[i, 2], boxes[i, 3] + 1):
            for tx in range(boxes[i, 0], boxes[i, 1] + 1):
                tile = ty * across + tx
                splats[filled[tile]] = i
                filled[tile] += 1
    return offsets, splats


@njit(inline="always")
def _pixels_of(centre, extent, first, end):
    """The first pixel, and how many, whose centres lie within the extent and within [first, end)."""
    low = int(np.ceil(max(centre - extent - 0.5, first)))
    high = int(np.floor(min(centre + extent - 0.5, end - 1)))
    return low, max(high + 1 - low, 0)


@njit(inline="always")
def _exp_minus(q):
    """exp(-q) for q in [0, 6] to 1e-13: a series about the middle of the sixteenth part, raised to the 16th power."""
    F = type(q)
    u = F(0.17328679513998632) - q * F(0.0625)  # 16 x 0.1732... = 4 log 2, taken off below as a factor 1 / 16
    p = F(1 / 40320) + u * F(1 / 362880)
    p = F(1 / 720) + u * (F(1 / 5040) + u * p)
    p = F(1 / 24) + u * (F(1 / 120) + u * p)
    p = F(1 / 2) + u * (F(1 / 6) + u * p)
    p = F(1) + u * (F(1) + u * p)
    p = p * p
    p = p * p
    p = p * p
    return p * p * F(0.0625)


@njit(cache=True, parallel=True, fastmath=FAST)
def forward(means2d, extents, conics, colours, opacities, background, offsets, splats, width, height):
    """The image [H, W, 3] and the light that passes all splats [H, W].

    `means2d` and `extents` are [M, 2], `conics` and `colours` [M, 3], `opacities` [M] and `background` [3]; `offsets`
    and `splats` are what `bin_tiles` gave.
    """
    F = means2d.dtype.type
    half, zero, one, furthest = F(0.5), F(0), F(1), F(6)
    least, most, dark = F(LEAST_ALPHA), F(MOST_ALPHA), F(LEAST_LIGHT)
    plane = np.uint64(PIXELS)
    across = (width + TILE - 1) // TILE
    image = np.empty((height, width, 3), means2d.dtype)
    light = np.empty((height, width), means2d.dtype)
    for tile in prange(len(offsets) - 1):
        x0, y0 = (tile % across) * TILE, (tile // across) * TILE
        x1, y1 = min(x0 + TILE, width), min(y0 + TILE, height)
        kept = np.zeros(5 * PIXELS, means2d.dtype)  # planes: light, open, red, green, blue
        kept[: 2 * PIXELS] = one
        for pair in range(offsets[tile], offsets[tile + 1]):
            i = splats[pair]
            a, b, c, o = conics[i, 0], conics[i, 1], conics[i, 2], opacities[i]
            red, green, blue = colours[i, 0], colours[i, 1], colours[i, 2]
            top, rows = _pixels_of(means2d[i, 1], extents[i, 1], y0, y1)
            dx0 = F(x0) + half - means2d[i, 0]
            for y in range(top, top + rows):
                dy = F(y) + half - means2d[i, 1]
                q0, q1 = half * c * dy * dy, b * dy
                j0 = np.uint64((y - y0) * TILE)
                for k in range(TILE):
                    j = j0 + np.uint64(k)
                    dx = dx0 + F(k)
                    q = half * a * dx * dx + q1 * dx + q0
                    alpha = min(most, o * _exp_minus(min(max(q, zero), furthest)))
                    t = kept[j]
                    remains = t * (one - alpha)
                    touches = (q >= zero) & (alpha >= least) & (kept[j + plane] > zero)
                    drawn = touches & (remains > dark)
                    weight = alpha * t if drawn else zero
                    kept[j] = remains if drawn else t
                    kept[j + plane] = zero if touches & (remains <= dark) else kept[j + plane]
                    kept[j + np.uint64(2) * plane] += weight * red
                    kept[j + np.uint64(3) * plane] += weight * green
                    kept[j + np.uint64(4) * plane] += weight * blue
        for y in range(y0, y1):
            for x in range(x0, x1):
                j = (y - y0) * TILE + x - x0
                light[y, x] = kept[j]
                for k in range(3):
                    image[y, x, k] = kept[j + (2 + k) * PIXELS] + kept[j] * background[k]
    return image, light


@njit(cache=True, parallel=True, fastmath=FAST)
def backward(
    means2d, extents, conics, colours, opacities, offsets, splats, width, height, image, light, d_image, d_light
):
    """Gradients of means2d, conics, colours and opacities side by side, of each pair of tile and splat: [pairs, 9].

    `image` [H, W, 3] and `light` [H, W] are what `forward` gave, with their gradients; the others as there.

    Walks forward again: what lies behind splat i is the finished colour less what came before, so
    dC / da_i = c_i T_i - (C - C_up_to_i) / (1 - a_i) and d light / da_i = -light / (1 - a_i).
    """
    F = means2d.dtype.type
    half, zero, one, furthest = F(0.5), F(0), F(1), F(6)
    least, most, dark = F(LEAST_ALPHA), F(MOST_ALPHA), F(LEAST_LIGHT)
    plane = np.uint64(PIXELS)
    across = (width + TILE - 1) // TILE
    pairs = np.zeros((len(splats), 9), means2d.dtype)
    for tile in prange(len(offsets) - 1):
        x0, y0 = (tile % across) * TILE, (tile // across) * TILE
        x1, y1 = min(x0 + TILE, width), min(y0 + TILE, height)
        kept = np.zeros(6 * PIXELS, means2d.dtype)  # planes: light, open, behind, the slopes of red, green, blue
        kept[: 2 * PIXELS] = one
        for y in range(y0, y1):
            for x in range(x0, x1):
                j = (y - y0) * TILE + x - x0
                behind = d_light[y, x] * light[y, x]
                for k in range(3):
                    behind += d_image[y, x, k] * image[y, x, k]
                    kept[j + (3 + k) * PIXELS] = d_image[y, x, k]
                kept[j + 2 * PIXELS] = behind  # d_image . (C - what came so far) + d_light . light
        for pair in range(offsets[tile], offsets[tile + 1]):
            i = splats[pair]
            a, b, c, o = conics[i, 0], conics[i, 1], conics[i, 2], opacities[i]
            red, green, blue = colours[i, 0], colours[i, 1], colours[i, 2]
            top, rows = _pixels_of(means2d[i, 1], extents[i, 1], y0, y1)
            dx0 = F(x0) + half - means2d[i, 0]
            s_x = s_y = s_a = s_b = s_c = s_red = s_green = s_blue = s_o = zero
            for y in range(top, top + rows):
                dy = F(y) + half - means2d[i, 1]
                q0, q1 = half * c * dy * dy, b * dy
                j0 = np.uint64((y - y0) * TILE)
                r_q = r_qx = r_qxx = zero  # sums over the row of dq, dq dx, dq dx^2
                for k in range(TILE):
                    j = j0 + np.uint64(k)
                    dx = dx0 + F(k)
                    q = half * a * dx * dx + q1 * dx + q0
                    falloff = _exp_minus(min(max(q, zero), furthest))
                    alpha = min(most, o * falloff)
                    t = kept[j]
                    remains = t * (one - alpha)
                    touches = (q >= zero) & (alpha >= least) & (kept[j + plane] > zero)
                    drawn = touches & (remains > dark)
                    weight = alpha * t if drawn else zero
                    d_red = kept[j + np.uint64(3) * plane]
                    d_green = kept[j + np.uint64(4) * plane]
                    d_blue = kept[j + np.uint64(5) * plane]
                    shade = d_red * red + d_green * green + d_blue * blue
                    rest = kept[j + np.uint64(2) * plane] - weight * shade
                    kept[j] = remains if drawn else t
                    kept[j + plane] = zero if touches & (remains <= dark) else kept[j + plane]
                    kept[j + np.uint64(2) * plane] = rest
                    s_red += weight * d_red
                    s_green += weight * d_green
                    s_blue += weight * d_blue
                    moves = drawn & (o * falloff < most)  # where clamped, alpha does not move
                    d_alpha = shade * t - rest / (one - alpha) if moves else zero
                    s_o += d_alpha * falloff
                    d_q = d_alpha * alpha
                    r_q += d_q
                    r_qx += d_q * dx
                    r_qxx += d_q * dx * dx
                s_a -= half * r_qxx
                s_b -= r_qx * dy
                s_c -= half * r_q * dy * dy
                s_x += a * r_qx + b * dy * r_q
                s_y += c * dy * r_q + b * r_qx
            pairs[pair, 0] = s_x
            pairs[pair, 1] = s_y
            pairs[pair, 2] = s_a
            pairs[pair, 3] = s_b
            pairs[pair, 4] = s_c
            pairs[pair, 5] = s_red
            pairs[pair, 6] = s_green
            pairs[pair, 7] = s_blue
            pairs[pair, 8] = s_o
    return pairs


@njit(cache=True)
def add_up(pairs, splats, n):
    """Sums over the tiles of each of n splats: [n, 9] of [pairs, 9]; `splats` [pairs] says whose each is."""
    total = np.zeros((n, pairs.shape[1]), pairs.dtype)
    for pair in range(len(splats)):
        i = splats[pair]
        for k in range(pairs.shape[1]):
            total[i, k] += pairs[pair, k]
    return total
