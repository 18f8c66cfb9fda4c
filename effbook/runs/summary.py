"""What several runs of one recipe say together."""

import math
import statistics
from dataclasses import dataclass

from effbook.errors import EffbookError


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
    from scipy.special import stdtrit  # Student's quantile; scipy.stats takes a second to import

    return Summary(mean, float(stdtrit(n - 1, 0.975)) * statistics.stdev(values) / math.sqrt(n), n)
