"""Where scenes come from: COLMAP models, transforms.json files, folders of photos, and still lifes that we render."""

from effbook.gaussians.scenes.colmap import read_colmap, reconstruct
from effbook.gaussians.scenes.scene import Scene, every_eighth
from effbook.gaussians.scenes.still_life import STILL_LIFES, still_life
from effbook.gaussians.scenes.transforms import read_ngp, read_synthetic

__all__ = [
    "STILL_LIFES",
    "Scene",
    "every_eighth",
    "read_colmap",
    "read_ngp",
    "read_synthetic",
    "reconstruct",
    "still_life",
]
