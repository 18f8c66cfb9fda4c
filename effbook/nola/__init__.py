"""NOLA: low-rank adaptation whose two factors are linear combinations of random matrices (section 3.2).

    from effbook.nola import NOLASettings, adapt
    adapt(model, NOLASettings(k=1000, l=1000, rank=8), targets=["q_proj", "v_proj"])

`effbook.nola.peft` (imported on its own, as it needs `peft`) makes it a method of that library. Names are imported when
they are asked for: settings (`config`) need no torch.
"""

import importlib

_FROM = {
    "Basis": "basis",
    "NOLAConv2d": "layer",
    "NOLALayer": "layer",
    "NOLALinear": "layer",
    "NOLASettings": "config",
    "PRANCSettings": "pranc",
    "adapt": "inject",
    "adapt_pranc": "pranc",
    "adapted": "inject",
    "combine": "basis",
    "count_parameters": "inject",
    "generate": "basis",
    "load": "checkpoint",
    "near_square": "layer",
    "save": "checkpoint",
    "split_fused": "inject",
    "stream_of": "basis",
}

__all__ = list(_FROM)


def __getattr__(name: str) -> object:
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FROM[name]}"), name)


def __dir__() -> list[str]:
    return __all__
