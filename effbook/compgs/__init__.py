"""CompGS: 3D Gaussian splatting with vector-quantised parameters and fewer Gaussians (section 3.1).

    from effbook.compgs import CompGSSettings, fit, read, write
    scene = fit(start, cameras, images, TrainSettings(), CompGSSettings(), extent=extent)
    write(scene, "scene.compgs")

`python -m effbook.compgs compress scene.ply scene.compgs` compresses a trained scene without training on.

Names are imported when they are asked for: settings (`config`) need no torch.
"""

import importlib

_FROM = {
    "BIT_QUANTISED": "config",
    "PACKED": "config",
    "Book": "config",
    "Codebook": "model",
    "CompGSSettings": "config",
    "Compressed": "model",
    "Quantiser": "quantise",
    "Storage": "config",
    "books": "config",
    "compress": "quantise",
    "describe": "container",
    "fit": "quantise",
    "int_x": "config",
    "read": "container",
    "read_parts": "container",
    "render": "draw",
    "write": "container",
}

__all__ = list(_FROM)


def __getattr__(name: str) -> object:
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FROM[name]}"), name)


def __dir__() -> list[str]:
    return __all__
