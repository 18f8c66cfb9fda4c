"""The slow twin of the rasteriser, written from the text (section 3.1.3): each Gaussian at each pixel."""

import math

import torch

from effbook.gaussians.camera import Camera
from effbook.gaussians.model import Gaussians


def scene(n: int, *, seed: int = 0, dtype: torch.dtype = torch.float64, size: float = -3.0) -> Gaussians:
    """Made-up Gaussians in front of `camera()`; some lie outside of the image."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return Gaussians(
        means=draw(n, 3),
        sh_dc=draw(n, 3),
        sh_rest=0.2 * draw(n, 15, 3),
        opacities=1.5 * draw(n),
        scales=size + 0.5 * draw(n, 3),
        rotations=draw(n, 4),
    )


def camera(width: int = 40, height: int = 28, *, distance: float = 5.0, name: str = "made up") -> Camera:
    """Looks along a turned axis at the origin."""
    turn = torch.linalg.qr(torch.tensor([[1.0, 0.2, -0.1], [-0.2, 1.0, 0.3], [0.1, -0.3, 1.0]], dtype=torch.float64))[0]
    turn = turn * torch.sign(torch.det(turn))
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3], pose[2, 3] = turn, distance
    return Camera(
        world_to_camera=pose,
        width=width,
        height=height,
        focal_x=1.3 * width,
        focal_y=1.2 * width,
        centre_x=0.48 * width,
        centre_y=0.53 * height,
        name=name,
    )


def colour_at(sh_dc, sh_rest, direction, degree):
    """0.5 + sum of the real harmonics, from their definition by associated Legendre functions, cut at 0."""
    from scipy.special import sph_harm_y

    x, y, z = (float(v) for v in direction)
    theta, phi = math.acos(z), math.atan2(y, x)
    total = 0.5 + 0.28209479177387814 * sh_dc
    place = 0
    for band in range(1, degree + 1):
        for order in range(-band, band + 1):
            value = complex(sph_harm_y(band, abs(order), theta, phi))
            if order < 0:
                basis = 2**0.5 * value.imag
            elif order > 0:
                basis = 2**0.5 * value.real
            else:
                basis = value.real
            total = total + basis * sh_rest[place]
            place += 1
    return total.clamp(min=0)


def draw(gaussians: Gaussians, view: Camera, background: torch.Tensor, colours: torch.Tensor):
    """The image and the light left, with autograd: C = sum_i c_i a_i prod_{j<i} (1 - a_j), nearest first.

    `colours` [N, 3] are those seen from the camera (tested apart).
    """
    turn, shift = view.world_to_camera[:3, :3], view.world_to_camera[:3, 3]
    focal = torch.tensor([view.focal_x, view.focal_y], dtype=turn.dtype)
    middle = torch.tensor([view.centre_x, view.centre_y], dtype=turn.dtype)
    size = torch.tensor([view.width, view.height], dtype=turn.dtype)
    ys, xs = torch.meshgrid(torch.arange(view.height), torch.arange(view.width), indexing="ij")
    pixels = torch.stack([xs, ys], -1).reshape(-1, 2).to(turn) + 0.5
    order = (gaussians.means @ turn[2] + shift[2]).argsort(stable=True).tolist()
    image, light = torch.zeros(len(pixels), 3, dtype=turn.dtype), torch.ones(len(pixels), dtype=turn.dtype)
    stopped = torch.zeros(len(pixels), dtype=torch.bool)
    for i in order:
        in_camera = turn @ gaussians.means[i] + shift
        if in_camera[2] <= 0.01:
            continue
        mean2d = focal * in_camera[:2] / in_camera[2] + middle
        # the derivative of the projection, taken no farther out than 15 % of the image's size
        tangent = ((mean2d - middle) / focal).clamp((-0.15 * size - middle) / focal, (1.15 * size - middle) / focal)
        zero = torch.zeros((), dtype=turn.dtype)
        jacobian = torch.stack(
            [
                torch.stack([focal[0] / in_camera[2], zero, -focal[0] * tangent[0] / in_camera[2]]),
                torch.stack([zero, focal[1] / in_camera[2], -focal[1] * tangent[1] / in_camera[2]]),
            ]
        )
        w, x, y, z = gaussians.rotations[i] / gaussians.rotations[i].norm()
        rotation = torch.stack(
            [
                torch.stack([w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)]),
                torch.stack([2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)]),
                torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z]),
            ]
        )
        covariance = rotation @ torch.diag(gaussians.scales[i].exp() ** 2) @ rotation.T
        covariance2d = jacobian @ turn @ covariance @ turn.T @ jacobian.T + 0.3 * torch.eye(2, dtype=turn.dtype)
        away = pixels - mean2d
        conic = torch.linalg.inv(covariance2d)
        distance = (away @ conic * away).sum(-1)
        alpha = (torch.sigmoid(gaussians.opacities[i]) * torch.exp(-0.5 * distance)).clamp(max=0.999)
        alpha = torch.where((alpha < 1 / 255) | stopped, torch.zeros_like(alpha), alpha)
        full = light * (1 - alpha) <= 1e-4
        stopped = stopped | full
        alpha = torch.where(full, torch.zeros_like(alpha), alpha)
        image = image + (light * alpha)[:, None] * colours[i]
        light = light * (1 - alpha)
    image = image + light[:, None] * background
    return image.reshape(view.height, view.width, 3), light.reshape(view.height, view.width)
