"""The CPU engine's first half: `project.project` for one view in numba, with its gradient by hand.

The definitions, their reasons and the letters are those of project.py; here they are written out for a single Gaussian.
"""

import numpy as np
from numba import njit, prange

BLUR = 0.3
NEAR = 0.01
LEAST_ALPHA = 1.0 / 255.0
MOST_PX = 1e9
MARGIN = 0.15
BLOCK = 256  # Gaussians that share their scratch memory
SH_C0 = 0.28209479177387814
C1 = 0.4886025119029199
C2 = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
C3 = (0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277)


@njit(inline="always")
def _rotation(q, out):
    """The rotation of a quaternion w, x, y, z into out [3, 3]; returns its length."""
    length = np.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3])
    length = max(length, type(length)(1e-12))
    w, x, y, z = q[0] / length, q[1] / length, q[2] / length, q[3] / length
    out[0, 0], out[0, 1], out[0, 2] = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
    out[1, 0], out[1, 1], out[1, 2] = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
    out[2, 0], out[2, 1], out[2, 2] = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)
    return length


@njit(inline="always")
def _harmonics(x, y, z, degree, out):
    """The harmonics of degrees 1 to `degree` into out [15]."""
    out[0], out[1], out[2] = -C1 * y, C1 * z, -C1 * x
    if degree > 1:
        out[3], out[4], out[5] = C2[0] * x * y, -C2[0] * y * z, C2[1] * (2 * z * z - x * x - y * y)
        out[6], out[7] = -C2[0] * x * z, C2[2] * (x * x - y * y)
    if degree > 2:
        out[8], out[9] = -C3[0] * y * (3 * x * x - y * y), C3[1] * x * y * z
        out[10] = -C3[2] * y * (4 * z * z - x * x - y * y)
        out[11] = C3[3] * z * (2 * z * z - 3 * x * x - 3 * y * y)
        out[12] = -C3[2] * x * (4 * z * z - x * x - y * y)
        out[13], out[14] = C3[4] * z * (x * x - y * y), -C3[0] * x * (x * x - 3 * y * y)


@njit(inline="always")
def _harmonics_slope(x, y, z, degree, d, out):
    """The gradient by direction into out [3] of sum_b d[b] harmonics_b(x, y, z)."""
    gx, gy, gz = -C1 * d[2], -C1 * d[0], C1 * d[1]
    if degree > 1:
        gx += C2[0] * (d[3] * y - d[6] * z) - 2 * C2[1] * d[5] * x + 2 * C2[2] * d[7] * x
        gy += C2[0] * (d[3] * x - d[4] * z) - 2 * C2[1] * d[5] * y - 2 * C2[2] * d[7] * y
        gz += C2[0] * (-d[4] * y - d[6] * x) + 4 * C2[1] * d[5] * z
    if degree > 2:
        gx += -6 * C3[0] * d[8] * x * y + C3[1] * d[9] * y * z + 2 * C3[2] * d[10] * x * y - 6 * C3[3] * d[11] * x * z
        gx += -C3[2] * d[12] * (4 * z * z - 3 * x * x - y * y) + 2 * C3[4] * d[13] * x * z
        gx += -3 * C3[0] * d[14] * (x * x - y * y)
        gy += -3 * C3[0] * d[8] * (x * x - y * y) + C3[1] * d[9] * x * z
        gy += -C3[2] * d[10] * (4 * z * z - x * x - 3 * y * y) - 6 * C3[3] * d[11] * y * z
        gy += 2 * C3[2] * d[12] * x * y - 2 * C3[4] * d[13] * y * z + 6 * C3[0] * d[14] * x * y
        gz += C3[1] * d[9] * x * y - 8 * C3[2] * d[10] * y * z + 3 * C3[3] * d[11] * (2 * z * z - x * x - y * y)
        gz += -8 * C3[2] * d[12] * x * z + C3[4] * d[13] * (x * x - y * y)
    out[0], out[1], out[2] = gx, gy, gz


@njit(cache=True, parallel=True)
def forward(means, sh_dc, sh_rest, opacities, scales, rotations, pose, place, lens, width, height, degree):
    """For each of N: [N, 13] of centre (2), conic (3), depth, extent (2), colour (3), opacity, and 1 if seen else 0.

    `pose` is world_to_camera [4, 4], `place` the camera's place [3], `lens` its focal lengths and principal point [4].
    """
    n = len(means)
    found = np.zeros((n, 13), means.dtype)
    fx, fy, cx, cy = lens
    u_low, u_high = (-MARGIN * width - cx) / fx, ((1 + MARGIN) * width - cx) / fx
    v_low, v_high = (-MARGIN * height - cy) / fy, ((1 + MARGIN) * height - cy) / fy
    for block in prange(-(-n // BLOCK)):
        turn, basis = np.empty((3, 3), means.dtype), np.zeros(15, means.dtype)
        for i in range(block * BLOCK, min(n, (block + 1) * BLOCK)):
            m = means[i]
            x = pose[0, 0] * m[0] + pose[0, 1] * m[1] + pose[0, 2] * m[2] + pose[0, 3]
            y = pose[1, 0] * m[0] + pose[1, 1] * m[1] + pose[1, 2] * m[2] + pose[1, 3]
            z = pose[2, 0] * m[0] + pose[2, 1] * m[1] + pose[2, 2] * m[2] + pose[2, 3]
            opacity = 1 / (1 + np.exp(-opacities[i]))
            if not (z > NEAR and opacity > LEAST_ALPHA):
                continue
            u, v = min(max(x / z, u_low), u_high), min(max(y / z, v_low), v_high)
            _rotation(rotations[i], turn)
            xx, xy, yy = means.dtype.type(BLUR), means.dtype.type(0), means.dtype.type(BLUR)
            for j in range(3):  # the columns of H = J W R S
                s = np.exp(scales[i, j])
                a0 = (pose[0, 0] * turn[0, j] + pose[0, 1] * turn[1, j] + pose[0, 2] * turn[2, j]) * s
                a1 = (pose[1, 0] * turn[0, j] + pose[1, 1] * turn[1, j] + pose[1, 2] * turn[2, j]) * s
                a2 = (pose[2, 0] * turn[0, j] + pose[2, 1] * turn[1, j] + pose[2, 2] * turn[2, j]) * s
                h0, h1 = fx / z * (a0 - u * a2), fy / z * (a1 - v * a2)
                xx += h0 * h0
                xy += h0 * h1
                yy += h1 * h1
            determinant = max(xx * yy - xy * xy, 1e-10)
            reach = np.sqrt(2 * np.log(opacity / LEAST_ALPHA))
            px, py, ex, ey = fx * x / z + cx, fy * y / z + cy, reach * np.sqrt(xx), reach * np.sqrt(yy)
            if not (
                px + ex > 0 and py + ey > 0 and px - ex < width and py - ey < height and ex < MOST_PX and ey < MOST_PX
            ):
                continue
            found[i, 0], found[i, 1] = px, py
            found[i, 2], found[i, 3], found[i, 4] = yy / determinant, -xy / determinant, xx / determinant
            found[i, 5], found[i, 6], found[i, 7] = z, ex, ey
            d0, d1, d2 = m[0] - place[0], m[1] - place[1], m[2] - place[2]
            far = max(np.sqrt(d0 * d0 + d1 * d1 + d2 * d2), 1e-12)
            if degree > 0:
                _harmonics(d0 / far, d1 / far, d2 / far, degree, basis)
            for k in range(3):
                colour = 0.5 + SH_C0 * sh_dc[i, k]
                for b in range((degree + 1) * (degree + 1) - 1):
                    colour += basis[b] * sh_rest[i, b, k]
                found[i, 8 + k] = max(colour, 0.0)
            found[i, 11], found[i, 12] = opacity, 1.0
    return found


@njit(cache=True, parallel=True)
def backward(index, slopes, found, means, sh_dc, sh_rest, scales, rotations, pose, place, lens, width, height, degree):
    """Gradients of means, sh_dc, sh_rest, opacities, scales and rotations [N, ...].

    `slopes` [M, 9] are those of centres, conics, colours and opacities of the M Gaussians `index`; the others get zero.
    """
    n, kind = len(means), means.dtype
    d_means, d_dc, d_rest = np.zeros((n, 3), kind), np.zeros((n, 3), kind), np.zeros((n, 15, 3), kind)
    d_opacities, d_scales, d_rotations = np.zeros(n, kind), np.zeros((n, 3), kind), np.zeros((n, 4), kind)
    fx, fy, cx, cy = lens
    u_low, u_high = (-MARGIN * width - cx) / fx, ((1 + MARGIN) * width - cx) / fx
    v_low, v_high = (-MARGIN * height - cy) / fy, ((1 + MARGIN) * height - cy) / fy
    for block in prange(-(-len(index) // BLOCK)):
        turn, d_turn = np.empty((3, 3), kind), np.empty((3, 3), kind)
        h, axes = np.empty((2, 3), kind), np.empty((3, 3), kind)
        basis, d_basis, d_direction = np.zeros(15, kind), np.zeros(15, kind), np.empty(3, kind)
        for row in range(block * BLOCK, min(len(index), (block + 1) * BLOCK)):
            i = index[row]
            m, slope, f = means[i], slopes[row], found[i]
            x = pose[0, 0] * m[0] + pose[0, 1] * m[1] + pose[0, 2] * m[2] + pose[0, 3]
            y = pose[1, 0] * m[0] + pose[1, 1] * m[1] + pose[1, 2] * m[2] + pose[1, 3]
            z = f[5]
            u, v = min(max(x / z, u_low), u_high), min(max(y / z, v_low), v_high)
            length = _rotation(rotations[i], turn)
            for j in range(3):
                s = np.exp(scales[i, j])
                for r in range(3):
                    axes[r, j] = (pose[r, 0] * turn[0, j] + pose[r, 1] * turn[1, j] + pose[r, 2] * turn[2, j]) * s
                h[0, j], h[1, j] = fx / z * (axes[0, j] - u * axes[2, j]), fy / z * (axes[1, j] - v * axes[2, j])
            # The conic K is the inverse of the covariance: d cov = -K dK K.
            a, b, c, half_b = f[2], f[3], f[4], slope[3] / 2
            t00, t01 = a * slope[2] + b * half_b, a * half_b + b * slope[4]
            t10, t11 = b * slope[2] + c * half_b, b * half_b + c * slope[4]
            c00, c01, c11 = -(t00 * a + t01 * b), -(t00 * b + t01 * c), -(t10 * b + t11 * c)
            d_u = d_v = d_z = kind.type(0)
            for j in range(3):  # cov = H H' + blur, H = J axes
                g0, g1 = 2 * (c00 * h[0, j] + c01 * h[1, j]), 2 * (c01 * h[0, j] + c11 * h[1, j])
                d_u -= g0 * fx / z * axes[2, j]
                d_v -= g1 * fy / z * axes[2, j]
                d_z -= (g0 * h[0, j] + g1 * h[1, j]) / z
                e0, e1 = g0 * fx / z, g1 * fy / z
                e2 = -(e0 * u + e1 * v)
                s, along = np.exp(scales[i, j]), kind.type(0)
                for r in range(3):
                    d_axis = pose[0, r] * e0 + pose[1, r] * e1 + pose[2, r] * e2  # of R S
                    along += d_axis * turn[r, j]
                    d_turn[r, j] = d_axis * s
                d_scales[i, j] = along * s
            d_x, d_y = slope[0] * fx / z, slope[1] * fy / z
            d_z -= (slope[0] * fx * x + slope[1] * fy * y) / (z * z)
            if u_low < x / z < u_high:
                d_x += d_u / z
                d_z -= d_u * x / (z * z)
            if v_low < y / z < v_high:
                d_y += d_v / z
                d_z -= d_v * y / (z * z)
            for k in range(3):
                d_means[i, k] = pose[0, k] * d_x + pose[1, k] * d_y + pose[2, k] * d_z
            w, p, q, r = (
                rotations[i, 0] / length,
                rotations[i, 1] / length,
                rotations[i, 2] / length,
                rotations[i, 3] / length,
            )
            g = d_turn
            n0 = 2 * (p * (g[2, 1] - g[1, 2]) + q * (g[0, 2] - g[2, 0]) + r * (g[1, 0] - g[0, 1]))
            n1 = 2 * (
                w * (g[2, 1] - g[1, 2])
                + q * (g[0, 1] + g[1, 0])
                + r * (g[0, 2] + g[2, 0])
                - 2 * p * (g[1, 1] + g[2, 2])
            )
            n2 = 2 * (
                w * (g[0, 2] - g[2, 0])
                + p * (g[0, 1] + g[1, 0])
                + r * (g[1, 2] + g[2, 1])
                - 2 * q * (g[0, 0] + g[2, 2])
            )
            n3 = 2 * (
                w * (g[1, 0] - g[0, 1])
                + p * (g[0, 2] + g[2, 0])
                + q * (g[1, 2] + g[2, 1])
                - 2 * r * (g[0, 0] + g[1, 1])
            )
            along = n0 * w + n1 * p + n2 * q + n3 * r  # normalising takes away what points along the quaternion
            d_rotations[i, 0], d_rotations[i, 1] = (n0 - along * w) / length, (n1 - along * p) / length
            d_rotations[i, 2], d_rotations[i, 3] = (n2 - along * q) / length, (n3 - along * r) / length
            d_opacities[i] = slope[8] * f[11] * (1 - f[11])
            d0, d1, d2 = m[0] - place[0], m[1] - place[1], m[2] - place[2]
            far = max(np.sqrt(d0 * d0 + d1 * d1 + d2 * d2), 1e-12)
            d0, d1, d2 = d0 / far, d1 / far, d2 / far
            d_basis[:] = 0
            if degree > 0:
                _harmonics(d0, d1, d2, degree, basis)
            for k in range(3):
                if f[8 + k] > 0:  # not cut at 0
                    d_dc[i, k] = SH_C0 * slope[5 + k]
                    for t in range((degree + 1) * (degree + 1) - 1):
                        d_rest[i, t, k] = basis[t] * slope[5 + k]
                        d_basis[t] += sh_rest[i, t, k] * slope[5 + k]
            if degree > 0:
                _harmonics_slope(d0, d1, d2, degree, d_basis, d_direction)
                along = d_direction[0] * d0 + d_direction[1] * d1 + d_direction[2] * d2
                d_means[i, 0] += (d_direction[0] - along * d0) / far
                d_means[i, 1] += (d_direction[1] - along * d1) / far
                d_means[i, 2] += (d_direction[2] - along * d2) / far
    return d_means, d_dc, d_rest, d_opacities, d_scales, d_rotations
