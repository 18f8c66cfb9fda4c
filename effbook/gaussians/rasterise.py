"""Draw a scene of Gaussians: one function, on the CPU by our own kernels or on CUDA by gsplat."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from effbook.errors import EffbookError
from effbook.gaussians.camera import Camera
from effbook.gaussians.model import Gaussians
from effbook.gaussians.project import Splats, project

Engine = Literal["auto", "cpu", "gsplat"]


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """What `render` drew."""

    image: Tensor  # [H, W, 3]
    light: Tensor  # [H, W], the share of the background that shows through
    splats: Splats  # what was seen; `splats.centres.grad` after backward drives densification


class _Draw(torch.autograd.Function):
    """The CPU kernels, as one operation on the six raw parameters."""

    @staticmethod
    def forward(ctx, camera, background, degree, seen, *parameters):
        from effbook.gaussians import kernels, kernels_project

        raw = [t.detach().contiguous().numpy() for t in parameters]
        kind = raw[0].dtype
        pose = camera.world_to_camera.detach().numpy().astype(kind)
        place = camera.position.detach().numpy().astype(kind)
        lens = np.array([camera.focal_x, camera.focal_y, camera.centre_x, camera.centre_y], kind)
        found = kernels_project.forward(*raw, pose, place, lens, camera.width, camera.height, degree)
        index = np.flatnonzero(found[:, 12])
        parts = [np.ascontiguousarray(found[index, a:b]) for a, b in ((0, 2), (6, 8), (2, 5), (8, 11))]
        parts += [np.ascontiguousarray(found[index, 11]), background.detach().numpy()]
        order = np.argsort(found[index, 5], kind="stable")
        offsets, splats = kernels.bin_tiles(parts[0], parts[1], order, camera.width, camera.height)
        image, light = kernels.forward(*parts, offsets, splats, camera.width, camera.height)
        names = ("centres", "extents", "conics", "colours", "opacities")
        seen.update({name: torch.from_numpy(part) for name, part in zip(names, parts, strict=False)})
        seen.update(index=torch.from_numpy(index), depths=torch.from_numpy(found[index, 5]))
        ctx.kept = (camera, degree, seen, raw, pose, place, lens, found, index, parts, offsets, splats, image, light)
        return torch.from_numpy(image), torch.from_numpy(light)

    @staticmethod
    def backward(ctx, d_image, d_light):
        from effbook.gaussians import kernels, kernels_project

        camera, degree, seen, raw, pose, place, lens, found, index, parts, offsets, splats, image, light = ctx.kept
        slopes = [d.contiguous().numpy() for d in (d_image, d_light)]
        size = (camera.width, camera.height)
        pairs = kernels.backward(*parts[:-1], offsets, splats, *size, image, light, *slopes)
        total = kernels.add_up(pairs, splats, len(index))
        seen["centres"].grad = torch.from_numpy(np.ascontiguousarray(total[:, :2]))
        means, sh_dc, sh_rest, _, scales, rotations = raw
        found_slopes = kernels_project.backward(
            index, total, found, means, sh_dc, sh_rest, scales, rotations, pose, place, lens, *size, degree
        )
        return None, None, None, None, *(torch.from_numpy(d) for d in found_slopes)


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
    if splats.centres.requires_grad:
        splats.centres.retain_grad()
    image, light = cuda.blend(splats, background, camera.width, camera.height)
    return View(image=image, light=light, splats=splats)


@torch.no_grad()
def draw_splats(splats: Splats, background: Tensor, width: int, height: int) -> Tensor:
    """The image [H, W, 3] of splats that are projected already, on their device; without gradients."""
    if splats.centres.is_cuda:
        from effbook.gaussians import cuda

        return cuda.blend(splats, background, width, height)[0]
    from effbook.gaussians import kernels

    names = ("centres", "extents", "conics", "colours", "opacities")
    parts = [np.ascontiguousarray(getattr(splats, name).numpy()) for name in names]
    order = np.argsort(splats.depths.numpy(), kind="stable")
    offsets, pairs = kernels.bin_tiles(parts[0], parts[1], order, width, height)
    return torch.from_numpy(kernels.forward(*parts, background.numpy(), offsets, pairs, width, height)[0])
