"""What several runs of one recipe say together."""

import math
import statistics
from dataclasses import dataclass

from effbook.errors import EffbookError

# Student's quantile at 97.5 % for 1, 2, ... degrees of freedom: importing SciPy takes longer than to show a table
QUANTILES = (
    12.706204736174705,
    4.302652729749464,
    3.1824463052837095,
    2.7764451051977943,
    2.5705818356363155,
    2.44691185114497,
    2.3646242515927853,
    2.3060041352041667,
    2.2621571627982053,
    2.228138851986275,
    2.2009851600916397,
    2.178812829667229,
    2.1603686564627926,
    2.144786687917804,
    2.1314495455597755,
    2.1199052992212546,
    2.109815577833317,
    2.1009220402410387,
    2.0930240544083096,
    2.085963447265865,
    2.0796138447276804,
    2.0738730679040263,
    2.0686576104190486,
    2.063898561628026,
    2.0595385527532977,
    2.055529438642873,
    2.0518305164802855,
    2.048407141795245,
    2.0452296421327043,
    2.042272456301238,
)


@dataclass(frozen=True)
class Summary:
    """Mean over seeds; the half-width of the 95 % t-interval is None for fewer than two values."""

    mean: float
    half_width: float | None
    n: int

    def __iter__(self):
        return iter((self.mean, self.half_width, self.n))


def summarise(values: list[float]) -> Summary:
    """Mean, half-width of the 95 % t-interval and count of the values of several seeds."""
    if not values:
        raise EffbookError("there are no values to summarise", "run the recipe first")
    n = len(values)
    mean = statistics.fmean(values)
    if n < 2:
        return Summary(mean, None, n)
    return Summary(mean, _quantile(n - 1) * statistics.stdev(values) / math.sqrt(n), n)


def _quantile(freedom: int) -> float:
    """Student's quantile at 97.5 %."""
    if freedom <= len(QUANTILES):
        return QUANTILES[freedom - 1]
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))
