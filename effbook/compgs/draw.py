"""Draw a compressed scene without unpacking it: at rest only codes, indices and what is kept plain are in memory."""

import torch
from torch import Tensor

from effbook.compgs.model import ROWS_AT_ONCE, Compressed
from effbook.gaussians.camera import Camera
from effbook.gaussians.project import Splats, project
from effbook.gaussians.rasterise import draw_splats


@torch.no_grad()
def render(
    scene: Compressed,
    camera: Camera,
    *,
    background: Tensor | None = None,
    sh_degree: int = 3,
    rows: int = ROWS_AT_ONCE,
) -> Tensor:
    """The image [H, W, 3] that `gaussians.render` draws of the decoded scene, before a background [3], black if None.

    Parameters are looked up for `rows` Gaussians at a time and projected at once; only what is seen in this view, 13
    numbers each, is kept until it is blended.
    """
    seen, start = [], 0
    for part in scene.parts(rows):
        splats = project(part, camera, sh_degree=sh_degree)
        seen.append((start, splats))
        start += len(part)
    fields = ("means2d", "conics", "depths", "extents", "colours", "opacities")
    whole = {name: torch.cat([getattr(splats, name) for _, splats in seen]) for name in fields}
    index = torch.cat([splats.index + first for first, splats in seen])
    background = whole["colours"].new_zeros(3) if background is None else background.to(whole["colours"])
    return draw_splats(Splats(index=index, **whole), background, camera.width, camera.height)
