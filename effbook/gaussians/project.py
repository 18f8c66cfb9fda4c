"""From raw parameters to ellipses and colours on the image: the part of 3D Gaussian splatting before the pixels.

EWA splatting as in 3DGS: the covariance R S S' R' (section 3.1.3) goes through the camera's rotation and the Jacobian
of the perspective division at the Gaussian's centre; 0.3 square pixels are added so that none falls between pixels.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from effbook.gaussians.camera import Camera
from effbook.gaussians.model import Gaussians
from effbook.gaussians.parameters import SH_C0

NEAR = 0.01  # nothing nearer to the camera is drawn, in units of the scene
BLUR = 0.3  # square pixels added to each ellipse
MOST_PX = 1e9  # what reaches farther is no ellipse any more
MARGIN = 0.15  # of the image: farther outside of it the Jacobian is that of its edge
LEAST_ALPHA = 1.0 / 255.0  # below this a Gaussian does not change a pixel


@dataclass(frozen=True, kw_only=True, eq=False)
class Splats:
    """What of the Gaussians is seen in one view: M of N, in the model's order."""

    index: Tensor  # [M], which Gaussians
    means2d: Tensor  # [M, 2], pixels
    conics: Tensor  # [M, 3], the inverse covariance's xx, xy, yy, 1 / square pixels
    depths: Tensor  # [M]
    extents: Tensor  # [M, 2], half the box outside which alpha is below 1 / 255, pixels
    colours: Tensor  # [M, 3], not negative
    opacities: Tensor  # [M], in (0, 1)


def rotation_matrices(quaternions: Tensor) -> Tensor:
    """Rotations [N, 3, 3] of quaternions w, x, y, z [N, 4] of any length but 0."""
    w, x, y, z = F.normalize(quaternions, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).reshape(-1, 3, 3)


def harmonics(directions: Tensor, degree: int) -> Tensor:
    """Real spherical harmonics of degrees 1 to `degree` at unit directions [M, 3], signed as in 3DGS: [M, 0 to 15]."""
    x, y, z = directions.unbind(-1)
    found: list[Tensor] = []
    if degree > 0:
        found += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree > 1:
        found += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2 * z * z - x * x - y * y),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (x * x - y * y),
        ]
    if degree > 2:
        found += [
            -0.5900435899266435 * y * (3 * x * x - y * y),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * z * z - x * x - y * y),
            0.3731763325901154 * z * (2 * z * z - 3 * x * x - 3 * y * y),
            -0.4570457994644658 * x * (4 * z * z - x * x - y * y),
            1.445305721320277 * z * (x * x - y * y),
            -0.5900435899266435 * x * (x * x - 3 * y * y),
        ]
    return torch.stack(found, dim=-1) if found else directions.new_zeros(len(directions), 0)


def colours_seen(sh_dc: Tensor, sh_rest: Tensor, means: Tensor, camera: Camera, degree: int) -> Tensor:
    """Colours [M, 3] of Gaussians as seen from the camera: 0.5 plus the harmonics' sum, cut at 0.

    `sh_dc` and `means` are [M, 3], `sh_rest` is [M, 15, 3].
    """
    directions = F.normalize(means - camera.position.to(means), dim=-1)
    basis = harmonics(directions, degree)  # [M, B]
    colours = 0.5 + SH_C0 * sh_dc
    if degree > 0:
        colours = colours + torch.einsum("mb,mbc->mc", basis, sh_rest[:, : basis.shape[1]])
    return colours.clamp(min=0.0)


def project(gaussians: Gaussians, camera: Camera, *, sh_degree: int = 3) -> Splats:
    """Project the Gaussians into a view; those behind the camera, outside the image or too faint are left out."""
    motion = camera.world_to_camera.to(gaussians.means)
    turn, shift = motion[:3, :3], motion[:3, 3]
    with torch.no_grad():
        depths = gaussians.means @ turn[2] + shift[2]
        ahead = torch.nonzero((depths > NEAR) & (gaussians.opacities.sigmoid() > LEAST_ALPHA)).squeeze(1)
    means = gaussians.means[ahead]
    places = means @ turn.T + shift  # [A, 3]
    x, y, z = places.unbind(-1)
    means2d = torch.stack([camera.focal_x * x / z + camera.centre_x, camera.focal_y * y / z + camera.centre_y], dim=-1)
    # Far outside of the image, the linear approximation runs away.
    margin_x, margin_y = MARGIN * camera.width, MARGIN * camera.height
    u = ((means2d[:, 0] - camera.centre_x) / camera.focal_x).clamp(
        (-margin_x - camera.centre_x) / camera.focal_x, (camera.width + margin_x - camera.centre_x) / camera.focal_x
    )
    v = ((means2d[:, 1] - camera.centre_y) / camera.focal_y).clamp(
        (-margin_y - camera.centre_y) / camera.focal_y, (camera.height + margin_y - camera.centre_y) / camera.focal_y
    )
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [camera.focal_x / z, zero, -camera.focal_x * u / z, zero, camera.focal_y / z, -camera.focal_y * v / z], dim=-1
    ).reshape(-1, 2, 3)
    axes = rotation_matrices(gaussians.rotations[ahead]) * gaussians.scales[ahead].exp()[:, None, :]  # R S, [A, 3, 3]
    half = jacobian @ (turn @ axes)  # [A, 2, 3]
    xx = (half[:, 0] * half[:, 0]).sum(-1) + BLUR
    xy = (half[:, 0] * half[:, 1]).sum(-1)
    yy = (half[:, 1] * half[:, 1]).sum(-1) + BLUR
    determinant = (xx * yy - xy * xy).clamp(min=1e-10)
    conics = torch.stack([yy, -xy, xx], dim=-1) / determinant[:, None]
    opacities = gaussians.opacities[ahead].sigmoid()
    with torch.no_grad():
        reach = (2.0 * (opacities / LEAST_ALPHA).log()).sqrt()  # alpha falls to 1 / 255 there
        extents = reach[:, None] * torch.stack([xx, yy], dim=-1).sqrt()
        low, high = means2d - extents, means2d + extents
        seen = (high[:, 0] > 0) & (high[:, 1] > 0) & (low[:, 0] < camera.width) & (low[:, 1] < camera.height)
        seen &= (extents < MOST_PX).all(-1)  # and so no NaN
        kept = torch.nonzero(seen).squeeze(1)
    index = ahead[kept]
    colours = colours_seen(gaussians.sh_dc[index], gaussians.sh_rest[index], means[kept], camera, sh_degree)
    return Splats(
        index=index,
        means2d=means2d[kept],
        conics=conics[kept],
        depths=z[kept].detach(),
        extents=extents[kept],
        colours=colours,
        opacities=opacities[kept],
    )
