"""How far two models of a scene are apart, where there are no photographs: pictures of both from around the scene."""

import math

import torch

from effbook.evaluate.images import psnr
from effbook.gaussians.camera import Camera
from effbook.gaussians.model import Gaussians
from effbook.gaussians.rasterise import render

VIEWS = 6
SIZE_PX = 256


def cameras_around(gaussians: Gaussians, *, views: int = VIEWS, size_px: int = SIZE_PX) -> list[Camera]:
    """Cameras on a circle above the middle of the opaque Gaussians, far enough to see most of them."""
    means = gaussians.means.detach().cpu().double()  # cameras are on the CPU
    places = means[gaussians.opacities.detach().cpu().sigmoid() > 0.1]
    places = places if len(places) else means
    middle = places.median(dim=0).values
    reach = (places - middle).norm(dim=-1)
    radius = max(float(reach.kthvalue(math.ceil(0.9 * len(reach))).values), 1e-3)
    found = []
    for i in range(views):
        angle = 2 * math.pi * i / views
        forward = -means.new_tensor([math.cos(angle), math.sin(angle), 0.5])
        forward = forward / forward.norm()
        right = torch.linalg.cross(forward, means.new_tensor([0.0, 0.0, 1.0]))
        right = right / right.norm()
        turn = torch.stack([right, torch.linalg.cross(forward, right), forward])
        pose = torch.eye(4, dtype=means.dtype, device=means.device)
        pose[:3, :3], pose[:3, 3] = turn, -turn @ (middle - 2.5 * radius * forward)
        found.append(
            Camera(
                world_to_camera=pose.to(gaussians.means.dtype),
                width=size_px,
                height=size_px,
                focal_x=size_px * 1.1,
                focal_y=size_px * 1.1,
                centre_x=size_px / 2,
                centre_y=size_px / 2,
                name=f"side {i + 1}",
            )
        )
    return found


@torch.no_grad()
def pictures_apart(one: Gaussians, other: Gaussians) -> list[float]:
    """PSNR in dB between pictures of two models, for each of the cameras around the first; at most 100."""
    found = []
    for camera in cameras_around(one):
        a, b = (render(model, camera).image.clamp(0, 1) for model in (one, other))
        found.append(min(psnr(a, b), 100.0))
    return found
