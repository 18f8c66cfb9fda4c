"""A scene as 3D Gaussians: 59 raw parameters each, as Gaussian splatting optimises and stores them (section 3.1.3)."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from effbook.errors import EffbookError
from effbook.gaussians.parameters import SH_C0, SH_REST, SHAPES


@dataclass(kw_only=True, eq=False)
class Gaussians:
    """N Gaussians with raw parameters: scales before exp, rotations before normalising, opacities before the sigmoid.

    Raises EffbookError if shapes disagree.
    """

    means: Tensor  # [N, 3]
    sh_dc: Tensor  # [N, 3]
    sh_rest: Tensor  # [N, 15, 3]
    opacities: Tensor  # [N], logits
    scales: Tensor  # [N, 3], logarithms
    rotations: Tensor  # [N, 4], quaternions w, x, y, z

    def __post_init__(self) -> None:
        n = len(self.means)
        for name, shape in SHAPES.items():
            found = tuple(getattr(self, name).shape)
            if found != (n, *shape):
                raise EffbookError(f"{name} has the shape {found} instead of {(n, *shape)}", "correct the model")

    def __len__(self) -> int:
        return len(self.means)

    def tensors(self) -> dict[str, Tensor]:
        """The six parameters by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def map(self, change: Callable[[Tensor], Tensor]) -> "Gaussians":
        """The same change made to each parameter: map(lambda t: t[keep]) selects, map(torch.Tensor.double) converts."""
        return Gaussians(**{name: change(tensor) for name, tensor in self.tensors().items()})

    def detached(self) -> "Gaussians":
        """A copy that shares no memory and no graph."""
        return self.map(lambda tensor: tensor.detach().clone())

    def check_finite(self) -> None:
        """Raise EffbookError, naming the parameter, if any value is NaN or infinite."""
        for name, tensor in self.tensors().items():
            if bad := int((~torch.isfinite(tensor)).sum()):
                raise EffbookError(f"{bad} values of {name} are not finite", "remove those Gaussians or train again")


def concatenate(*parts: Gaussians) -> Gaussians:
    """All Gaussians of the parts, in order."""
    tensors = [part.tensors() for part in parts]
    return Gaussians(**{name: torch.cat([t[name] for t in tensors]) for name in tensors[0]})


def from_points(points: Tensor, colours: Tensor, *, opacity: float = 0.1) -> Gaussians:
    """Start from a point cloud [N, 3] with colours in [0, 1], as 3DGS does.

    Each is a ball whose radius is the root mean square distance to its three nearest neighbours. Raises EffbookError
    for fewer than four points, points that are not finite, and points that all lie in one place.
    """
    from scipy.spatial import cKDTree

    if points.ndim != 2 or points.shape[1] != 3 or colours.shape != points.shape:
        raise EffbookError(
            f"points are {tuple(points.shape)} and colours {tuple(colours.shape)}", "give [N, 3] for both"
        )
    if len(points) < 4:
        raise EffbookError(f"the point cloud has {len(points)} points", "give at least four")
    if not torch.isfinite(points).all() or not torch.isfinite(colours).all():
        raise EffbookError("the point cloud has values that are not finite", "remove those points")
    if float((points - points[0]).abs().max()) == 0.0:
        raise EffbookError("all points of the cloud lie in one place", "give points that are spread over the scene")
    distances, _ = cKDTree(points.double().cpu().numpy()).query(points.double().cpu().numpy(), k=4)
    mean_square = torch.from_numpy((distances[:, 1:] ** 2).mean(axis=1)).clamp(min=1e-7).to(points)
    n = len(points)
    return Gaussians(
        means=points.clone(),
        sh_dc=(colours - 0.5) / SH_C0,
        sh_rest=points.new_zeros(n, SH_REST, 3),
        opacities=points.new_full((n,), opacity).logit(),
        scales=(0.5 * mean_square.log())[:, None].expand(n, 3).clone(),
        rotations=points.new_tensor([1.0, 0.0, 0.0, 0.0]).expand(n, 4).clone(),
    )
