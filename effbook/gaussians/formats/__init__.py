"""Files that other tools read and write: 3D Gaussian splatting's .ply, .splat, .spz, SOG and compressed.ply."""

from effbook.gaussians.formats.ply import read_ply, write_ply
from effbook.gaussians.formats.sog import read_sog
from effbook.gaussians.formats.sog_writing import write_sog
from effbook.gaussians.formats.splat import read_splat, write_splat
from effbook.gaussians.formats.spz import read_spz, write_spz
from effbook.gaussians.formats.table import READERS, WRITERS, ending, writer

__all__ = [
    "READERS",
    "WRITERS",
    "ending",
    "read_ply",
    "read_sog",
    "read_splat",
    "read_spz",
    "write_ply",
    "write_sog",
    "write_splat",
    "write_spz",
    "writer",
]
