"""The CPU engine's first half: `project.project` for one view in numba, with its gradient by hand.

The definitions and their reasons are those of project.py; here they are written out for a single Gaussian. `d_x` is the
gradient of the loss by x. All that is compiled stands in this file, constants too: numba's cache sees no change in
another. Recorded runs are repeated to the last bit, so the order and the kinds of all operations stay as they are.
"""

from typing import NamedTuple

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

inlined = njit(inline="always")


class Pinhole(NamedTuple):
    """A camera as the kernels take it, in the numbers of the Gaussians' kind."""

    world_to_camera: np.ndarray  # [4, 4]
    position: np.ndarray  # [3]
    focal_x: np.floating
    focal_y: np.floating
    centre_x: np.floating
    centre_y: np.floating
    width: int
    height: int


class Projected(NamedTuple):
    """The N Gaussians on the image, as in `project.Splats`; rows that are not `seen` hold nothing of use."""

    means2d: np.ndarray  # [N, 2]
    conics: np.ndarray  # [N, 3]
    depths: np.ndarray  # [N]
    extents: np.ndarray  # [N, 2]
    colours: np.ndarray  # [N, 3]
    opacities: np.ndarray  # [N]
    seen: np.ndarray  # [N], bool


# --- steps that both directions take -------------------------------------------------------------------------------


@inlined
def _in_camera(mean, motion):
    """A place in the world [3] as the camera [4, 4] has it: x, y, z."""
    x = motion[0, 0] * mean[0] + motion[0, 1] * mean[1] + motion[0, 2] * mean[2] + motion[0, 3]
    y = motion[1, 0] * mean[0] + motion[1, 1] * mean[1] + motion[1, 2] * mean[2] + motion[1, 3]
    z = motion[2, 0] * mean[0] + motion[2, 1] * mean[1] + motion[2, 2] * mean[2] + motion[2, 3]
    return x, y, z


@inlined
def _bounds(lens):
    """Between which x / z, and which y / z, the projection's derivative is taken: low, high, low, high."""
    low_x, high_x = (-MARGIN * lens.width - lens.centre_x), ((1 + MARGIN) * lens.width - lens.centre_x)
    low_y, high_y = (-MARGIN * lens.height - lens.centre_y), ((1 + MARGIN) * lens.height - lens.centre_y)
    return low_x / lens.focal_x, high_x / lens.focal_x, low_y / lens.focal_y, high_y / lens.focal_y


@inlined
def _rotation_matrix(quaternion, out):
    """The rotation of a quaternion w, x, y, z into out [3, 3]; returns the quaternion's length."""
    q = quaternion
    length = np.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3])
    length = max(length, type(length)(1e-12))
    w, x, y, z = q[0] / length, q[1] / length, q[2] / length, q[3] / length
    out[0, 0], out[0, 1], out[0, 2] = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
    out[1, 0], out[1, 1], out[1, 2] = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
    out[2, 0], out[2, 1], out[2, 2] = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)
    return length


@inlined
def _axis(j, motion, rotation, size):
    """The ellipsoid's j-th axis, a column of R S, as the camera sees it: x, y, z of W R S."""
    x = (motion[0, 0] * rotation[0, j] + motion[0, 1] * rotation[1, j] + motion[0, 2] * rotation[2, j]) * size
    y = (motion[1, 0] * rotation[0, j] + motion[1, 1] * rotation[1, j] + motion[1, 2] * rotation[2, j]) * size
    z = (motion[2, 0] * rotation[0, j] + motion[2, 1] * rotation[1, j] + motion[2, 2] * rotation[2, j]) * size
    return x, y, z


@inlined
def _direction(mean, position):
    """From the camera [3] to a mean [3]: the vector and its length."""
    x, y, z = mean[0] - position[0], mean[1] - position[1], mean[2] - position[2]
    return x, y, z, max(np.sqrt(x * x + y * y + z * z), 1e-12)


@inlined
def _harmonics(x, y, z, degree, out):
    """The harmonics of degrees 1 to `degree` at a unit direction into out [15]."""
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


# --- forward -------------------------------------------------------------------------------------------------------


@inlined
def _covariance2d(u, v, z, log_scales, rotation, lens, kind):
    """H H' + blur with H = J W R S: the ellipse's xx, xy and yy in square pixels; log_scales [3], rotation [3, 3]."""
    xx, xy, yy = kind(BLUR), kind(0), kind(BLUR)
    for j in range(3):
        axis_x, axis_y, axis_z = _axis(j, lens.world_to_camera, rotation, np.exp(log_scales[j]))
        half_x, half_y = lens.focal_x / z * (axis_x - u * axis_z), lens.focal_y / z * (axis_y - v * axis_z)
        xx += half_x * half_x
        xy += half_x * half_y
        yy += half_y * half_y
    return xx, xy, yy


@inlined
def _on_image(x, y, extent_x, extent_y, lens):
    """Whether the box about an ellipse touches the image; not so if anything is NaN."""
    inside = x + extent_x > 0 and y + extent_y > 0 and x - extent_x < lens.width and y - extent_y < lens.height
    return inside and extent_x < MOST_PX and extent_y < MOST_PX


@njit(cache=True, parallel=True)
def forward(means, sh_dc, sh_rest, opacities, scales, rotations, lens, degree):
    """Project all Gaussians, of raw parameters as in `model.Gaussians`, into the view of a Pinhole: Projected."""
    n, kind = len(means), means.dtype.type
    means2d, conics, depths = np.zeros((n, 2), means.dtype), np.zeros((n, 3), means.dtype), np.zeros(n, means.dtype)
    extents, colours, alphas = np.zeros((n, 2), means.dtype), np.zeros((n, 3), means.dtype), np.zeros(n, means.dtype)
    seen = np.zeros(n, np.bool_)
    u_low, u_high, v_low, v_high = _bounds(lens)
    for block in prange(-(-n // BLOCK)):
        rotation, basis = np.empty((3, 3), means.dtype), np.zeros(15, means.dtype)
        for i in range(block * BLOCK, min(n, (block + 1) * BLOCK)):
            x, y, z = _in_camera(means[i], lens.world_to_camera)
            opacity = 1 / (1 + np.exp(-opacities[i]))
            if not (z > NEAR and opacity > LEAST_ALPHA):
                continue
            u, v = min(max(x / z, u_low), u_high), min(max(y / z, v_low), v_high)
            _rotation_matrix(rotations[i], rotation)
            xx, xy, yy = _covariance2d(u, v, z, scales[i], rotation, lens, kind)
            determinant = max(xx * yy - xy * xy, 1e-10)
            reach = np.sqrt(2 * np.log(opacity / LEAST_ALPHA))
            mean_x, mean_y = lens.focal_x * x / z + lens.centre_x, lens.focal_y * y / z + lens.centre_y
            extent_x, extent_y = reach * np.sqrt(xx), reach * np.sqrt(yy)
            if not _on_image(mean_x, mean_y, extent_x, extent_y, lens):
                continue
            seen[i], depths[i], alphas[i] = True, z, opacity
            means2d[i, 0], means2d[i, 1] = mean_x, mean_y
            extents[i, 0], extents[i, 1] = extent_x, extent_y
            conics[i, 0], conics[i, 1], conics[i, 2] = yy / determinant, -xy / determinant, xx / determinant
            away_x, away_y, away_z, far = _direction(means[i], lens.position)
            if degree > 0:
                _harmonics(away_x / far, away_y / far, away_z / far, degree, basis)
            for k in range(3):
                colour = 0.5 + SH_C0 * sh_dc[i, k]
                for b in range((degree + 1) * (degree + 1) - 1):
                    colour += basis[b] * sh_rest[i, b, k]
                colours[i, k] = max(colour, 0.0)
    return Projected(means2d, conics, depths, extents, colours, alphas, seen)


# --- backward ------------------------------------------------------------------------------------------------------


@inlined
def _d_covariance2d(conic, d_conic):
    """From the inverse K [3] to the covariance, d cov = -K dK K: xx, xy, yy."""
    a, b, c, half = conic[0], conic[1], conic[2], d_conic[1] / 2
    xx, xy = a * d_conic[0] + b * half, a * half + b * d_conic[2]  # K dK
    yx, yy = b * d_conic[0] + c * half, b * half + c * d_conic[2]
    return -(xx * a + xy * b), -(xx * b + xy * c), -(yx * b + yy * c)


@inlined
def _d_quaternion(quaternion, length, d_rotation, out):
    """From the rotation matrix [3, 3] to the quaternion [4] that was not normalised."""
    g = d_rotation
    w, x, y, z = quaternion[0] / length, quaternion[1] / length, quaternion[2] / length, quaternion[3] / length
    d_w = 2 * (x * (g[2, 1] - g[1, 2]) + y * (g[0, 2] - g[2, 0]) + z * (g[1, 0] - g[0, 1]))
    d_x = w * (g[2, 1] - g[1, 2]) + y * (g[0, 1] + g[1, 0]) + z * (g[0, 2] + g[2, 0])
    d_x = 2 * (d_x - 2 * x * (g[1, 1] + g[2, 2]))
    d_y = w * (g[0, 2] - g[2, 0]) + x * (g[0, 1] + g[1, 0]) + z * (g[1, 2] + g[2, 1])
    d_y = 2 * (d_y - 2 * y * (g[0, 0] + g[2, 2]))
    d_z = w * (g[1, 0] - g[0, 1]) + x * (g[0, 2] + g[2, 0]) + y * (g[1, 2] + g[2, 1])
    d_z = 2 * (d_z - 2 * z * (g[0, 0] + g[1, 1]))
    along = d_w * w + d_x * x + d_y * y + d_z * z  # normalising takes away what points along the quaternion
    out[0], out[1] = (d_w - along * w) / length, (d_x - along * x) / length
    out[2], out[3] = (d_y - along * y) / length, (d_z - along * z) / length


@inlined
def _d_harmonics(x, y, z, degree, d, out):
    """The gradient by direction into out [3] of sum_b d[b] harmonics_b(x, y, z)."""
    d_x, d_y, d_z = -C1 * d[2], -C1 * d[0], C1 * d[1]
    if degree > 1:
        d_x += C2[0] * (d[3] * y - d[6] * z) - 2 * C2[1] * d[5] * x + 2 * C2[2] * d[7] * x
        d_y += C2[0] * (d[3] * x - d[4] * z) - 2 * C2[1] * d[5] * y - 2 * C2[2] * d[7] * y
        d_z += C2[0] * (-d[4] * y - d[6] * x) + 4 * C2[1] * d[5] * z
    if degree > 2:
        d_x += -6 * C3[0] * d[8] * x * y + C3[1] * d[9] * y * z + 2 * C3[2] * d[10] * x * y - 6 * C3[3] * d[11] * x * z
        d_x += -C3[2] * d[12] * (4 * z * z - 3 * x * x - y * y) + 2 * C3[4] * d[13] * x * z
        d_x += -3 * C3[0] * d[14] * (x * x - y * y)
        d_y += -3 * C3[0] * d[8] * (x * x - y * y) + C3[1] * d[9] * x * z
        d_y += -C3[2] * d[10] * (4 * z * z - x * x - 3 * y * y) - 6 * C3[3] * d[11] * y * z
        d_y += 2 * C3[2] * d[12] * x * y - 2 * C3[4] * d[13] * y * z + 6 * C3[0] * d[14] * x * y
        d_z += C3[1] * d[9] * x * y - 8 * C3[2] * d[10] * y * z + 3 * C3[3] * d[11] * (2 * z * z - x * x - y * y)
        d_z += -8 * C3[2] * d[12] * x * z + C3[4] * d[13] * (x * x - y * y)
    out[0], out[1], out[2] = d_x, d_y, d_z


@njit(cache=True, parallel=True)
def backward(index, slopes, projected, means, sh_dc, sh_rest, scales, rotations, lens, degree):
    """Gradients of means, sh_dc, sh_rest, opacities, scales and rotations [N, ...]; `projected` is what forward gave.

    `slopes` [M, 9] are those of means2d (2), conics (3), colours (3) and opacities (1) of the M Gaussians `index`; the
    others get zero.
    """
    n, kind = len(means), means.dtype
    d_means, d_sh_dc, d_sh_rest = np.zeros((n, 3), kind), np.zeros((n, 3), kind), np.zeros((n, 15, 3), kind)
    d_opacities, d_scales, d_rotations = np.zeros(n, kind), np.zeros((n, 3), kind), np.zeros((n, 4), kind)
    motion, focal_x, focal_y = lens.world_to_camera, lens.focal_x, lens.focal_y
    u_low, u_high, v_low, v_high = _bounds(lens)
    for block in prange(-(-len(index) // BLOCK)):
        rotation, d_rotation = np.empty((3, 3), kind), np.empty((3, 3), kind)
        half, axes = np.empty((2, 3), kind), np.empty((3, 3), kind)
        basis, d_basis, d_direction = np.zeros(15, kind), np.zeros(15, kind), np.empty(3, kind)
        for row in range(block * BLOCK, min(len(index), (block + 1) * BLOCK)):
            i = index[row]
            d_mean2d, d_conic, d_colour, d_opacity = (
                slopes[row, 0:2],
                slopes[row, 2:5],
                slopes[row, 5:8],
                slopes[row, 8],
            )
            x, y, _ = _in_camera(means[i], motion)
            z = projected.depths[i]
            u, v = min(max(x / z, u_low), u_high), min(max(y / z, v_low), v_high)
            length = _rotation_matrix(rotations[i], rotation)
            for j in range(3):
                axes[0, j], axes[1, j], axes[2, j] = _axis(j, motion, rotation, np.exp(scales[i, j]))
                half[0, j] = focal_x / z * (axes[0, j] - u * axes[2, j])
                half[1, j] = focal_y / z * (axes[1, j] - v * axes[2, j])
            d_xx, d_xy, d_yy = _d_covariance2d(projected.conics[i], d_conic)
            d_u = d_v = d_z = kind.type(0)
            for j in range(3):  # cov = H H' + blur, H = J W R S
                d_half_x = 2 * (d_xx * half[0, j] + d_xy * half[1, j])
                d_half_y = 2 * (d_xy * half[0, j] + d_yy * half[1, j])
                d_u -= d_half_x * focal_x / z * axes[2, j]
                d_v -= d_half_y * focal_y / z * axes[2, j]
                d_z -= (d_half_x * half[0, j] + d_half_y * half[1, j]) / z
                d_axis_x, d_axis_y = d_half_x * focal_x / z, d_half_y * focal_y / z
                d_axis_z = -(d_axis_x * u + d_axis_y * v)
                size, d_size = np.exp(scales[i, j]), kind.type(0)
                for r in range(3):
                    d_world = motion[0, r] * d_axis_x + motion[1, r] * d_axis_y + motion[2, r] * d_axis_z  # of R S
                    d_size += d_world * rotation[r, j]
                    d_rotation[r, j] = d_world * size
                d_scales[i, j] = d_size * size
            d_x, d_y = d_mean2d[0] * focal_x / z, d_mean2d[1] * focal_y / z
            d_z -= (d_mean2d[0] * focal_x * x + d_mean2d[1] * focal_y * y) / (z * z)
            if u_low < x / z < u_high:
                d_x += d_u / z
                d_z -= d_u * x / (z * z)
            if v_low < y / z < v_high:
                d_y += d_v / z
                d_z -= d_v * y / (z * z)
            for k in range(3):
                d_means[i, k] = motion[0, k] * d_x + motion[1, k] * d_y + motion[2, k] * d_z
            _d_quaternion(rotations[i], length, d_rotation, d_rotations[i])
            opacity = projected.opacities[i]
            d_opacities[i] = d_opacity * opacity * (1 - opacity)
            away_x, away_y, away_z, far = _direction(means[i], lens.position)
            unit_x, unit_y, unit_z = away_x / far, away_y / far, away_z / far
            d_basis[:] = 0
            if degree > 0:
                _harmonics(unit_x, unit_y, unit_z, degree, basis)
            for k in range(3):
                if projected.colours[i, k] > 0:  # not cut at 0
                    d_sh_dc[i, k] = SH_C0 * d_colour[k]
                    for b in range((degree + 1) * (degree + 1) - 1):
                        d_sh_rest[i, b, k] = basis[b] * d_colour[k]
                        d_basis[b] += sh_rest[i, b, k] * d_colour[k]
            if degree > 0:
                _d_harmonics(unit_x, unit_y, unit_z, degree, d_basis, d_direction)
                along = d_direction[0] * unit_x + d_direction[1] * unit_y + d_direction[2] * unit_z
                d_means[i, 0] += (d_direction[0] - along * unit_x) / far
                d_means[i, 1] += (d_direction[1] - along * unit_y) / far
                d_means[i, 2] += (d_direction[2] - along * unit_z) / far
    return d_means, d_sh_dc, d_sh_rest, d_opacities, d_scales, d_rotations
