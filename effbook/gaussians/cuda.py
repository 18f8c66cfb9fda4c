"""The CUDA engine: alpha-blending by gsplat's kernels, which its package compiles when they are first used."""

import torch
from torch import Tensor

from effbook.gaussians import toolkit
from effbook.gaussians.project import Splats

DEVICE = "cuda"  # only runs on such a device have this module in their fingerprint
TILE = 16


def blend(splats: Splats, background: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """The image [H, W, 3] and the light that passes all splats [H, W]; differentiable in what `project` gives.

    `background` is [3]. Raises EffbookError where gsplat's kernels would have to be compiled and cannot.
    """
    toolkit.check()
    import gsplat

    across, down = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    means2d = splats.means2d[None].contiguous()  # gsplat's leading dimension counts images
    radii = splats.extents.ceil().int()[None].contiguous()
    _, pairs, order = gsplat.isect_tiles(means2d.detach(), radii, splats.depths[None].contiguous(), TILE, across, down)
    offsets = gsplat.isect_offset_encode(pairs, 1, across, down).reshape(1, down, across)
    colours, alphas = gsplat.rasterize_to_pixels(
        means2d,
        splats.conics[None].contiguous(),
        splats.colours[None].contiguous(),
        splats.opacities[None].contiguous(),
        width,
        height,
        TILE,
        offsets,
        order,
        backgrounds=background[None].contiguous(),
    )
    return colours[0], torch.ones_like(alphas[0, ..., 0]) - alphas[0, ..., 0]
