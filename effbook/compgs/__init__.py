"""CompGS: 3D Gaussian splatting with vector-quantised parameters and fewer Gaussians (section 3.1).

    from effbook.compgs import CompGSSettings, fit, read, write
    scene = fit(start, cameras, images, TrainSettings(), CompGSSettings(), extent=extent)
    write(scene, "scene.compgs")

`python -m effbook.compgs compress scene.ply scene.compgs` compresses a trained scene without training on.
"""

from effbook.compgs.container import BIT_QUANTISED, PACKED, Storage, describe, int_x, read, read_parts, write
from effbook.compgs.draw import render
from effbook.compgs.model import Codebook, Compressed
from effbook.compgs.quantise import Book, CompGSSettings, Quantiser, books, compress, fit

__all__ = [
    "BIT_QUANTISED",
    "PACKED",
    "Book",
    "Codebook",
    "CompGSSettings",
    "Compressed",
    "Quantiser",
    "Storage",
    "books",
    "compress",
    "describe",
    "fit",
    "int_x",
    "read",
    "read_parts",
    "render",
    "write",
]
