"""Joules of a call: the machine's own energy counters before and after a loop, less what idling would have taken.

On NVIDIA's cards the driver counts (from Volta on), and the counter moves about every 100 ms; on the CPU it is RAPL,
where the system lets one read it. A counter knows no processes: measure on a machine that does nothing else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any, Self

import torch

from effbook.errors import EffbookError
from effbook.evaluate.latency import finish_gpu

SHORTEST_S = 2.0  # of a loop, so that a counter's step is a twentieth of it
STILL_S = 2.0  # a counter that has not moved for so long is none


@dataclass(frozen=True)
class Counter:
    """Joules that only grow, and where they come from: "nvml" or "rapl"."""

    source: str
    read_joules: Callable[[], float]


@dataclass(frozen=True)
class Energy:
    """Joules of a call above idle: the median of the rounds, their least and greatest; what idling took; all calls."""

    joules: float
    range_joules: tuple[float, float]
    idle_watts: float
    calls: int
    source: str


def gpu_counter(device: torch.device | str) -> Counter:
    """The energy counter of a CUDA device.

    Raises `EffbookError` without such a device, without nvidia-ml-py, or where the card has no counter (as one older
    than Volta, or a slice of one).
    """
    device, remedy = torch.device(device), 'report its joules as "not measured"'
    if device.type != "cuda" or not torch.cuda.is_available():
        raise EffbookError(f"There is no CUDA device {device} here whose energy could be read", remedy)
    try:
        import pynvml
    except ImportError as error:
        raise EffbookError(
            "A GPU's energy is read with nvidia-ml-py, which is not installed", "pip install nvidia-ml-py"
        ) from error
    try:
        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(device).uuid  # CUDA_VISIBLE_DEVICES may have renumbered them
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError as error:
        raise EffbookError(f"The GPU {device} has no energy counter that can be read ({error})", remedy) from error
    return Counter("nvml", lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3)  # it counts millijoules


def cpu_counter(folder: Path = Path("/sys/class/powercap")) -> Counter:
    """RAPL's counters of all processor packages and their memory, summed.

    Raises `EffbookError` where there are none, or this user may not read them.
    """
    zones: list[Path] = []
    try:
        for zone in sorted(folder.glob("intel-rapl:*")):  # AMD's, too
            # Cores and graphics are parts of the package, and "psys" holds all of them: they would count twice.
            if (zone / "name").read_text().startswith(("package", "dram")):
                zones.append(zone)
        spans = [int((zone / "max_energy_range_uj").read_text()) for zone in zones]
        last = [int((zone / "energy_uj").read_text()) for zone in zones]
    except OSError as error:
        raise EffbookError(
            f"RAPL's energy counters in {folder} cannot be read ({(error.strerror or 'unreadable').lower()})",
            'make energy_uj readable for this user, or report the joules as "not measured"',
        ) from error
    if not zones:
        raise EffbookError(f"{folder} shows no energy counter of a processor", 'report the joules as "not measured"')
    total_uj = 0

    def read_joules() -> float:
        nonlocal last, total_uj
        now = [int((zone / "energy_uj").read_text()) for zone in zones]
        total_uj += sum((b - a) % span for a, b, span in zip(last, now, spans, strict=True))  # they wrap around
        last = now
        return total_uj / 1e6

    return Counter("rapl", read_joules)


class EnergyMeter:
    """Measures functions in turns by one counter, in loops of `seconds`, `rounds` times.

    Raises `EffbookError` for loops under 2 s and for less than one round.
    """

    def __init__(self, counter: Counter, *, seconds: float = SHORTEST_S, rounds: int = 3) -> None:
        if not seconds >= SHORTEST_S or rounds < 1:
            raise EffbookError(
                f"{rounds} rounds of {seconds:g} s are too short for a counter that moves every 100 ms",
                f"take at least one round, and loops of {SHORTEST_S:g} s or more",
            )
        self.counter, self.seconds, self.rounds = counter, seconds, rounds

    @classmethod
    def on(cls, device: torch.device | str, *, seconds: float = SHORTEST_S, rounds: int = 3) -> Self | None:
        """A meter for a device, or None where its energy cannot be read: then it is "not measured"."""
        try:
            counter = gpu_counter(device) if torch.device(device).type == "cuda" else cpu_counter()
        except EffbookError:
            return None
        return cls(counter, seconds=seconds, rounds=rounds)

    def measure(self, functions: Mapping[str, Callable[[], Any]]) -> dict[str, Energy]:
        """Joules of one call of each function.

        Each round idles once, then loops over each function; the next starts with the next function. From each loop
        its round's idle power is taken off. Raises `EffbookError` without a function, and where the counter stands
        still.
        """
        if not functions:
            raise EffbookError("There is no function whose energy to measure", "give at least one")
        for function in functions.values():
            function()  # what the first call alone does is no part of it
        order, joules, calls = list(functions), {name: [] for name in functions}, dict.fromkeys(functions, 0)
        idle_watts = []
        for _ in range(self.rounds):
            finish_gpu()
            start_joules, start_s = self._tick()
            sleep(self.seconds)
            end_joules, end_s = self._tick()
            idle_watts.append((end_joules - start_joules) / (end_s - start_s))
            for name in order:
                start_joules, start_s = self._tick()
                count = self._loop(functions[name])
                end_joules, end_s = self._tick()
                joules[name].append((end_joules - start_joules - idle_watts[-1] * (end_s - start_s)) / count)
                calls[name] += count
            order = order[1:] + order[:1]
        return {
            name: Energy(
                joules=median(of_rounds),
                range_joules=(min(of_rounds), max(of_rounds)),
                idle_watts=median(idle_watts),
                calls=calls[name],
                source=self.counter.source,
            )
            for name, of_rounds in joules.items()
        }

    def _loop(self, function: Callable[[], Any]) -> int:
        """Call for `seconds`; how often."""
        count, until = 0, perf_counter() + self.seconds
        while not count or perf_counter() < until:
            function()
            finish_gpu()  # else the loop would queue far more than `seconds` of work
            count += 1
        return count

    def _tick(self) -> tuple[float, float]:
        """The counter's joules and the time, just as it moves: so that its steps lose nothing at a loop's ends."""
        before, until = self.counter.read_joules(), perf_counter() + STILL_S
        while (now := self.counter.read_joules()) == before:
            if perf_counter() > until:
                raise EffbookError(
                    f"The energy counter of {self.counter.source} stands still", 'report the joules as "not measured"'
                )
            sleep(1e-3)
        return now, perf_counter()
