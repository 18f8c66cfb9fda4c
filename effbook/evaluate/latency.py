"""Latency by the clock: a warm-up, then the conditions in turns, then the median of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch

from effbook.errors import EffbookError


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a call: the median and the quartiles around it, of so many repeats."""

    median_ms: float
    quartiles_ms: tuple[float, float]
    repeats: int


def latency_ms(function: Callable[[], Any], *, repeats: int = 20, warmup: int = 3) -> Latency:
    """The latency of one function; `latencies_ms` is what compares several. Raises `EffbookError` as that does."""
    return latencies_ms({"it": function}, repeats=repeats, warmup=warmup)["it"]


def latencies_ms(
    functions: Mapping[str, Callable[[], Any]], *, repeats: int = 20, warmup: int = 3
) -> dict[str, Latency]:
    """The latency of each function, all measured in turns, so that a machine that slows down slows all of them.

    A round calls each once; the next round starts with the next function. The first `warmup` rounds are not counted.
    The current CUDA device, where one is used, has finished before the clock is read.

    Raises `EffbookError` where there is no function or no repeat, or the warm-up is below 0.
    """
    if not functions or repeats < 1 or warmup < 0:
        raise EffbookError(
            f"{len(functions)} functions, {repeats} repeats and {warmup} of warm-up measure nothing",
            "give at least one function and one repeat",
        )
    order, times_ms = list(functions), {name: [] for name in functions}
    for turn in range(warmup + repeats):
        for name in order:
            finish_gpu()
            start = perf_counter()
            functions[name]()
            finish_gpu()
            if turn >= warmup:
                times_ms[name].append(1e3 * (perf_counter() - start))
        order = order[1:] + order[:1]
    quartiles = {name: np.quantile(times, [0.25, 0.5, 0.75]).tolist() for name, times in times_ms.items()}
    return {
        name: Latency(median_ms=median, quartiles_ms=(low, high), repeats=repeats)
        for name, (low, median, high) in quartiles.items()
    }


def finish_gpu() -> None:
    """Wait for the current CUDA device, if this process uses one."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
