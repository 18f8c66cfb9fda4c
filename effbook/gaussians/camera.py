"""A pinhole camera: pixel (0, 0) is the upper left one and has its centre at (0.5, 0.5); x right, y down, z forward."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from effbook.errors import EffbookError


@dataclass(frozen=True, kw_only=True, eq=False)
class Camera:
    """Where a view was taken from, and how.

    `world_to_camera` is a rigid motion [4, 4]; focal lengths and the principal point are in pixels. Raises EffbookError
    for a size below 1, a focal length that is not positive, or a matrix that is no rigid motion.
    """

    world_to_camera: Tensor  # [4, 4]
    width: int
    height: int
    focal_x: float
    focal_y: float
    centre_x: float
    centre_y: float
    name: str = ""

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise EffbookError(f"camera {self.name!r} is {self.width} x {self.height} pixels", "give at least 1 x 1")
        if not (self.focal_x > 0 and self.focal_y > 0):
            raise EffbookError(
                f"camera {self.name!r} has the focal lengths {self.focal_x}, {self.focal_y}", "give positive ones"
            )
        motion = self.world_to_camera
        if motion.shape != (4, 4) or not torch.isfinite(motion).all():
            raise EffbookError(f"camera {self.name!r} has no finite 4 x 4 pose", "correct its pose")
        rotation = motion[:3, :3].double()
        away = (rotation @ rotation.T - torch.eye(3, dtype=rotation.dtype, device=rotation.device)).abs().max()
        if away > 1e-3 or torch.det(rotation) < 0:
            raise EffbookError(
                f"the pose of camera {self.name!r} is no rotation and shift", "remove scale and mirroring from it"
            )

    @property
    def position(self) -> Tensor:
        """The camera's place in the world, [3]."""
        return -self.world_to_camera[:3, :3].T @ self.world_to_camera[:3, 3]

    def scaled(self, factor: float) -> "Camera":
        """The same view with `factor` times the pixels a side; sizes are rounded to whole pixels, the view is whole."""
        width, height = max(1, round(self.width * factor)), max(1, round(self.height * factor))
        x, y = width / self.width, height / self.height
        return replace(
            self,
            width=width,
            height=height,
            focal_x=self.focal_x * x,
            focal_y=self.focal_y * y,
            centre_x=self.centre_x * x,
            centre_y=self.centre_y * y,
        )

    def shrunk(self, factor: int) -> "Camera":
        """The camera of an image whose blocks of factor x factor pixels are averaged (`scenes.scene.shrink_area`).

        What fills no block is cut off at the right and below: that makes the image smaller, not its pixels larger.
        """
        return replace(
            self,
            width=self.width // factor,
            height=self.height // factor,
            focal_x=self.focal_x / factor,
            focal_y=self.focal_y / factor,
            centre_x=self.centre_x / factor,
            centre_y=self.centre_y / factor,
        )
