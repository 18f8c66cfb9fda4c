"""Draw a scene of Gaussians: one function, on the CPU by our own kernels or on CUDA by gsplat."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from effbook.errors import EffbookError
from effbook.gaussians.camera import Camera
from effbook.gaussians.model import Gaussians
from effbook.gaussians.project import Splats, project

if TYPE_CHECKING:
    from effbook.gaussians import kernels_project

Engine = Literal["auto", "cpu", "gsplat"]


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """What `render` drew."""

    image: Tensor  # [H, W, 3]
    light: Tensor  # [H, W], the share of the background that shows through
    splats: Splats  # what was seen; `splats.means2d.grad` after backward drives densification


class _Draw(torch.autograd.Function):
    """The CPU kernels, as one operation on the six raw parameters: project, sort into tiles, blend."""

    @staticmethod
    def forward(ctx, camera: Camera, background: Tensor, degree: int, seen: dict[str, Tensor], *parameters: Tensor):
        """Image [H, W, 3] and light [H, W]; what of the Gaussians is seen goes into `seen`, by the names of Splats.

        `background` is [3], the parameters are those of `Gaussians.tensors`, in its order.
        """
        from effbook.gaussians import kernels, kernels_project

        raw = [t.detach().contiguous().numpy() for t in parameters]
        lens = _pinhole(camera, raw[0].dtype)
        projected = kernels_project.forward(*raw, lens, degree)
        index = np.flatnonzero(projected.seen)  # [M]
        depths = projected.depths[index]  # [M]
        ellipses = [getattr(projected, name)[index] for name in kernels.ELLIPSES]  # [M, ...]
        order = np.argsort(depths, kind="stable")
        means2d, extents = ellipses[0], ellipses[1]
        offsets, pairs = kernels.bin_tiles(means2d, extents, order, camera.width, camera.height)
        image, light = kernels.forward(
            *ellipses, background.detach().numpy(), offsets, pairs, camera.width, camera.height
        )
        seen.update({name: torch.from_numpy(array) for name, array in zip(kernels.ELLIPSES, ellipses, strict=True)})
        seen.update(index=torch.from_numpy(index), depths=torch.from_numpy(depths))
        ctx.seen, ctx.degree = seen, degree
        ctx.projection = (raw, lens, projected, index)
        ctx.blending = (ellipses, offsets, pairs, image, light)
        return torch.from_numpy(image), torch.from_numpy(light)

    @staticmethod
    def backward(ctx, d_image: Tensor, d_light: Tensor):
        """Gradients of the six parameters [N, ...] from those of image [H, W, 3] and light [H, W]."""
        from effbook.gaussians import kernels, kernels_project

        raw, lens, projected, index = ctx.projection
        ellipses, offsets, pairs, image, light = ctx.blending
        slopes = [d.contiguous().numpy() for d in (d_image, d_light)]
        by_pair = kernels.backward(*ellipses, offsets, pairs, lens.width, lens.height, image, light, *slopes)
        by_splat = kernels.add_up(by_pair, pairs, len(index))  # [M, 9]
        ctx.seen["means2d"].grad = torch.from_numpy(np.ascontiguousarray(by_splat[:, :2]))
        means, sh_dc, sh_rest, _, scales, rotations = raw
        d_raw = kernels_project.backward(
            index, by_splat, projected, means, sh_dc, sh_rest, scales, rotations, lens, ctx.degree
        )
        return None, None, None, None, *(torch.from_numpy(d) for d in d_raw)


def _pinhole(camera: Camera, dtype: np.dtype) -> "kernels_project.Pinhole":
    """The camera as the kernels take it, in the numbers of the Gaussians' kind."""
    from effbook.gaussians.kernels_project import Pinhole

    lens = np.array([camera.focal_x, camera.focal_y, camera.centre_x, camera.centre_y], dtype)
    return Pinhole(
        camera.world_to_camera.detach().cpu().numpy().astype(dtype),
        camera.position.detach().cpu().numpy().astype(dtype),
        *lens,
        camera.width,
        camera.height,
    )


def render(
    gaussians: Gaussians,
    camera: Camera,
    *,
    background: Tensor | None = None,
    sh_degree: int = 3,
    engine: Engine = "auto",
) -> View:
    """Draw the view of a camera; differentiable in all parameters.

    `background` [3] is black by default. `engine` auto takes gsplat for Gaussians on a CUDA device and the CPU kernels
    otherwise; both follow the same definitions. Raises EffbookError for an engine that does not fit the device.
    """
    means = gaussians.means
    if engine == "auto":
        engine = "gsplat" if means.is_cuda else "cpu"
    if (engine == "gsplat") != means.is_cuda:
        raise EffbookError(
            f"the engine {engine} cannot draw Gaussians on {means.device}", "move them or choose engine='auto'"
        )
    background = means.new_zeros(3) if background is None else background.to(means)
    if engine == "cpu":
        seen: dict[str, Tensor] = {}
        image, light = _Draw.apply(camera, background, sh_degree, seen, *gaussians.tensors().values())
        return View(image=image, light=light, splats=Splats(**seen))
    from effbook.gaussians import cuda

    splats = project(gaussians, camera, sh_degree=sh_degree)
    if splats.means2d.requires_grad:
        splats.means2d.retain_grad()
    image, light = cuda.blend(splats, background, camera.width, camera.height)
    return View(image=image, light=light, splats=splats)


@torch.no_grad()
def draw_splats(splats: Splats, background: Tensor, width: int, height: int) -> Tensor:
    """The image [H, W, 3] of splats that are projected already, on their device; without gradients.

    `background` is [3], width and height are in pixels.
    """
    background = background.to(splats.colours)
    if splats.means2d.is_cuda:
        from effbook.gaussians import cuda

        return cuda.blend(splats, background, width, height)[0]
    from effbook.gaussians import kernels

    ellipses = [np.ascontiguousarray(getattr(splats, name).numpy()) for name in kernels.ELLIPSES]
    order = np.argsort(splats.depths.numpy(), kind="stable")
    offsets, pairs = kernels.bin_tiles(*ellipses[:2], order, width, height)
    image, _ = kernels.forward(*ellipses, background.numpy(), offsets, pairs, width, height)
    return torch.from_numpy(image)
