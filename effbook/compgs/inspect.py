"""How far two models of a scene are apart, where there are no photographs: pictures of both from around the scene."""

import math

import torch
from torch import Tensor

from effbook.gaussians.camera import Camera
from effbook.gaussians.model import Gaussians
from effbook.gaussians.rasterise import render

VIEWS = 6
SIZE_PX = 256
AWAY = 2.5  # a camera's distance, in radii of the scene
FILLS = 0.9  # of the picture, by the middle nine tenths of the scene's Gaussians
COVERED = 1.0 / 255.0  # light that a pixel must have taken up to count
MOST_DB = 100.0


def cameras_around(gaussians: Gaussians, *, views: int = VIEWS, size_px: int = SIZE_PX) -> list[Camera]:
    """Cameras on all sides of the opaque Gaussians, along no axis, each with a lens that they fill."""
    means = gaussians.means.detach().cpu().double()  # cameras are on the CPU
    places = means[gaussians.opacities.detach().cpu().sigmoid() > 0.1]
    places = places if len(places) else means
    middle = places.median(dim=0).values
    reach = (places - middle).norm(dim=-1)
    radius = max(float(reach.kthvalue(math.ceil(0.9 * len(reach))).values), 1e-3)
    found = []
    for i in range(views):  # evenly over the sphere: heights in equal steps, the golden angle between them
        height, angle = 1 - (2 * i + 1) / views, i * math.pi * (3 - math.sqrt(5))
        across = math.sqrt(1 - height * height)
        forward = -means.new_tensor([across * math.cos(angle), across * math.sin(angle), height])
        right = torch.linalg.cross(forward, means.new_tensor([0.0, 0.0, 1.0]))
        right = right / right.norm()
        turn = torch.stack([right, torch.linalg.cross(forward, right), forward])
        pose = torch.eye(4, dtype=means.dtype, device=means.device)
        pose[:3, :3], pose[:3, 3] = turn, -turn @ (middle - AWAY * radius * forward)
        focal, centre = _lens(places, pose, size_px, radius)
        found.append(
            Camera(
                world_to_camera=pose.to(gaussians.means.dtype),
                width=size_px,
                height=size_px,
                focal_x=focal,
                focal_y=focal,
                centre_x=centre[0],
                centre_y=centre[1],
                name=f"side {i + 1}",
            )
        )
    return found


def _lens(places: Tensor, pose: Tensor, size_px: int, radius: float) -> tuple[float, list[float]]:
    """The focal length and principal point, in pixels, with which the scene fills the picture."""
    seen = places @ pose[:3, :3].T + pose[:3, 3]
    seen = seen[seen[:, 2] > 0.1 * radius]
    flat = seen[:, :2] / seen[:, 2:]  # as a lens of focal length 1 sees them
    ends = torch.stack([torch.stack([_share(column, 0.05), _share(column, 0.95)]) for column in flat.T])  # [2, 2]
    focal = FILLS * size_px / max(float((ends[:, 1] - ends[:, 0]).max()), 0.02)
    return focal, (0.5 * size_px - focal * ends.mean(1)).tolist()


def _share(values: Tensor, share: float) -> Tensor:
    """The value below which such a share of them lies (torch's own refuses many values)."""
    return values.kthvalue(1 + round(share * (len(values) - 1))).values


@torch.no_grad()
def pictures_apart(one: Gaussians, other: Gaussians) -> list[float]:
    """PSNR in dB between pictures of two models, for each of the cameras around the first; at most 100.

    Only pixels count that either model covers: an empty background would be equal, and flatter any of them.
    """
    found = []
    for camera in cameras_around(one):
        a, b = render(one, camera), render(other, camera)
        covered = (a.light < 1 - COVERED) | (b.light < 1 - COVERED)  # [H, W]
        errors = (a.image.clamp(0, 1).double() - b.image.clamp(0, 1).double())[covered].square()
        error = float(errors.mean()) if len(errors) else 0.0
        found.append(min(-10 * math.log10(error), MOST_DB) if error > 0 else MOST_DB)
    return found
