"""The six parameters of a Gaussian: their names and shapes, without torch, for settings that name them."""

import math

SH_REST = 15  # harmonics of degrees 1 to 3 a colour channel
SH_C0 = 0.28209479177387814  # 1 / (2 sqrt(pi)), the harmonic of degree 0

SHAPES: dict[str, tuple[int, ...]] = {
    "means": (3,),
    "sh_dc": (3,),
    "sh_rest": (SH_REST, 3),
    "opacities": (),
    "scales": (3,),
    "rotations": (4,),
}


def width(parameter: str) -> int:
    """Values a Gaussian: 3 for means, 45 for sh_rest, 1 for opacities."""
    return math.prod(SHAPES[parameter])


PARAMETERS = sum(map(width, SHAPES))  # 59
