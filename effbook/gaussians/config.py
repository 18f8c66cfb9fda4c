"""How a scene is trained: learning rates, density control and the loop, without torch. The defaults are 3DGS's."""

import math
from dataclasses import dataclass, field

from effbook.errors import EffbookError

MOST_SEED = 2**63 - 1  # what torch's generators take


def check_whole(settings: object, least: int, *names: str, most: int | None = None) -> None:
    """Raise EffbookError, naming the field, unless these fields are whole numbers from `least` to `most`."""
    for name in names:
        value = getattr(settings, name)
        if type(value) is not int or value < least or (most is not None and value > most):
            remedy = f"give a whole number of at least {least}"
            raise EffbookError(f"{name} is {value!r}", remedy if most is None else f"{remedy} and at most {most}")


def check_real(settings: object, least: float, *names: str) -> None:
    """Raise EffbookError, naming the field, unless these fields are finite numbers of at least `least`."""
    for name in names:
        value = getattr(settings, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
            raise EffbookError(f"{name} is {value!r}", f"give a number of at least {least:g}")


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Learning rates of 3DGS. Those of the means are in units of the scene's extent and fall exponentially."""

    means_first: float = 1.6e-4
    means_last: float = 1.6e-6
    sh_dc: float = 2.5e-3
    sh_rest: float = 1.25e-4
    opacities: float = 5e-2
    scales: float = 5e-3
    rotations: float = 1e-3

    def __post_init__(self) -> None:
        check_real(self, 0, "means_first", "means_last", "sh_dc", "sh_rest", "opacities", "scales", "rotations")

    def at(self, step: int, steps: int, extent: float) -> dict[str, float]:
        """The rate of each parameter at a step of `steps`; `extent` is the radius of the cameras' places."""
        part = min(max(step / max(steps, 1), 0.0), 1.0)
        means = extent * self.means_first ** (1 - part) * self.means_last**part
        rest = {name: getattr(self, name) for name in ("sh_dc", "sh_rest", "opacities", "scales", "rotations")}
        return {"means": means, **rest}


@dataclass(frozen=True, kw_only=True)
class DensitySettings:
    """When and where Gaussians are added and removed; the defaults are 3DGS's for 30,000 iterations.

    3DGS names a `too_wide_px` of 20, which never acts: its released code sets all widths to zero before it prunes.
    """

    start: int = 500
    end: int = 15_000
    interval: int = 100
    gradient_threshold: float = 2e-4  # of the centre, in half images (3DGS's normalised device coordinates)
    least_opacity: float = 0.005
    reset_interval: int = 3_000
    reset_opacity: float = 0.01
    large: float = 0.01  # of the scene's extent: above it a Gaussian is split, below cloned
    too_large: float = 0.1  # of the scene's extent: pruned
    too_wide_px: float | None = None  # radius on the image: pruned, like what is too large, after the first reset
    split_shrink: float = 1.6
    most: int | None = None  # no Gaussians are added beyond this number

    def __post_init__(self) -> None:
        check_whole(self, 1, "interval", "reset_interval")
        check_whole(self, 0, "start", "end", *([] if self.most is None else ["most"]))
        check_real(self, 0, "gradient_threshold", "least_opacity", "large", "too_large")
        check_real(self, 1e-6, "reset_opacity", "split_shrink", *([] if self.too_wide_px is None else ["too_wide_px"]))


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a scene is trained; the defaults are 3DGS's."""

    iterations: int = 30_000
    ssim_weight: float = 0.2
    sh_degree: int = 3
    sh_interval: int = 1_000  # iterations between one degree of harmonics and the next
    rates: Rates = field(default_factory=Rates)
    density: DensitySettings = field(default_factory=DensitySettings)
    background: tuple[float, float, float] = (0.0, 0.0, 0.0)
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole(self, 1, "iterations", "sh_interval")
        check_whole(self, 0, "sh_degree", most=3)
        check_whole(self, 0, "seed", most=MOST_SEED)
        check_real(self, 0, "ssim_weight")
