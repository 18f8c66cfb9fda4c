"""Adaptive density control of 3DGS: clone what is small and pulled, split what is large and pulled, prune the rest.

All three change the model's rows; the optimiser's moments follow (`Adam.select`, `Adam.append`).
"""

import torch
from torch import Tensor

from effbook.errors import EffbookError
from effbook.gaussians.camera import Camera
from effbook.gaussians.config import DensitySettings
from effbook.gaussians.model import Gaussians, concatenate
from effbook.gaussians.project import Splats, rotation_matrices


class PullMeter:
    """Collects how strongly the image pulls at each Gaussian's centre from step to step, and how wide it was drawn."""

    def __init__(self, n: int, *, device: torch.device | str = "cpu") -> None:
        self.pull = torch.zeros(n, device=device)  # [N], sum of gradient norms
        self.seen = torch.zeros(n, device=device)  # [N], in how many steps
        self.widest = torch.zeros(n, device=device)  # [N], radius in pixels

    @torch.no_grad()
    def note(self, splats: Splats, camera: Camera) -> None:
        """After backward: add the gradient of the centres in half images."""
        half = torch.tensor([camera.width / 2, camera.height / 2], device=self.pull.device)
        norms = (splats.means2d.grad.to(half) * half).norm(dim=-1)
        self.pull.index_add_(0, splats.index, norms)
        self.seen.index_add_(0, splats.index, torch.ones_like(norms))
        radii = splats.extents.amax(-1).to(self.widest)
        self.widest[splats.index] = torch.maximum(self.widest[splats.index], radii)

    @property
    def mean_pull(self) -> Tensor:
        """[N]; 0 for what was never seen."""
        return self.pull / self.seen.clamp(min=1.0)


@torch.no_grad()
def densify(
    gaussians: Gaussians,
    meter: PullMeter,
    *,
    extent: float,
    settings: DensitySettings,
    after_reset: bool,
    generator: torch.Generator,
) -> tuple[Gaussians, Tensor]:
    """Clone, split and prune: the new model, and for each row [M] the old one that it goes on from, or -1 if new.

    `extent` is the radius of the cameras' places. Clones keep the parameters of their original; a split replaces one by
    two drawn from it, `split_shrink` times smaller. Raises EffbookError if nothing would be left.
    """
    n = len(gaussians)
    pulled = meter.mean_pull > settings.gradient_threshold
    room = n if settings.most is None else max(0, settings.most - n)
    if int(pulled.sum()) > room:  # the most strongly pulled first
        order = torch.where(pulled, meter.mean_pull, -torch.ones_like(meter.mean_pull)).argsort(descending=True)
        pulled = torch.zeros_like(pulled)
        pulled[order[:room]] = True
    size = gaussians.scales.exp().amax(-1)
    big = size > settings.large * extent
    clone, split = pulled & ~big, pulled & big
    children = _halves(gaussians.map(lambda t: t[split]), settings.split_shrink, generator)
    grown = concatenate(gaussians.map(lambda t: t[~split]), gaussians.map(lambda t: t[clone]), children)
    old = torch.arange(n, device=size.device)[~split]
    origin = torch.cat([old, old.new_full((len(grown) - len(old),), -1)])
    widest = torch.cat([meter.widest[~split], meter.widest.new_zeros(len(grown) - len(old))])
    gone = grown.opacities.sigmoid() < settings.least_opacity
    if after_reset:
        gone |= grown.scales.exp().amax(-1) > settings.too_large * extent
        if settings.too_wide_px is not None:
            gone |= widest > settings.too_wide_px
    if bool(gone.all()):
        raise EffbookError("pruning would leave no Gaussian", "lower least_opacity or train longer before pruning")
    return grown.map(lambda t: t[~gone]), origin[~gone]


def _halves(parents: Gaussians, shrink: float, generator: torch.Generator) -> Gaussians:
    """Two children each, drawn from the parent's own distribution."""
    twice = parents.map(lambda t: torch.cat([t, t]))
    noise = torch.randn(twice.means.shape, generator=generator, dtype=twice.means.dtype, device=generator.device)
    noise = noise.to(twice.means.device)  # drawn where the generator is: the same numbers for every device
    offsets = (rotation_matrices(twice.rotations) @ (noise * twice.scales.exp())[..., None]).squeeze(-1)
    twice.means = twice.means + offsets
    twice.scales = twice.scales - torch.log(torch.tensor(shrink, device=twice.scales.device))
    return twice


@torch.no_grad()
def prune(gaussians: Gaussians, least_opacity: float) -> tuple[Gaussians, Tensor]:
    """Remove what is fainter than `least_opacity`: the rest, and which old rows those are [M].

    Raises EffbookError if nothing would be left.
    """
    kept = torch.nonzero(gaussians.opacities.sigmoid() >= least_opacity).squeeze(1)
    if len(kept) == 0:
        raise EffbookError("pruning would leave no Gaussian", "lower least_opacity or the opacity regulariser")
    return gaussians.map(lambda t: t[kept]), kept
