"""NOLA: low-rank adaptation whose two factors are linear combinations of random matrices (section 3.2).

    from effbook.nola import NOLASettings, adapt
    adapt(model, NOLASettings(k=1000, l=1000, rank=8), targets=["q_proj", "v_proj"])

`effbook.nola.peft` (imported on its own, as it needs `peft`) makes it a method of that library.
"""

from effbook.nola.basis import Basis, combine, generate, stream_of
from effbook.nola.checkpoint import load, save
from effbook.nola.config import NOLASettings
from effbook.nola.inject import adapt, adapted, count_parameters, split_fused
from effbook.nola.layer import NOLAConv2d, NOLALayer, NOLALinear, near_square
from effbook.nola.pranc import PRANCSettings, adapt_pranc

__all__ = [
    "Basis",
    "NOLAConv2d",
    "NOLALayer",
    "NOLALinear",
    "NOLASettings",
    "PRANCSettings",
    "adapt",
    "adapt_pranc",
    "adapted",
    "combine",
    "count_parameters",
    "generate",
    "load",
    "near_square",
    "save",
    "split_fused",
    "stream_of",
]
