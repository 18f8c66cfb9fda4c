"""Files that other tools read and write: 3D Gaussian splatting's .ply, .splat and .spz."""

from effbook.gaussians.formats.ply import read_ply, write_ply
from effbook.gaussians.formats.splat import read_splat, write_splat
from effbook.gaussians.formats.spz import read_spz, write_spz

__all__ = ["read_ply", "read_splat", "read_spz", "write_ply", "write_splat", "write_spz"]
