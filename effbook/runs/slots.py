"""What runs take of a machine while they run, and whether there is room for one more: jobs, memory, GPUs."""

from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from effbook.runs.machine import GIB, Card
from effbook.runs.recipe import Recipe

_PROCESS_BYTES = GIB // 2  # CUDA's own, of each process on a card


@dataclass(frozen=True)
class Demand:
    """What a run asks for: processes, bytes of memory, and so many GPUs with so many bytes on each.

    `gpu_bytes` is None where the run needs a GPU and does not say how much of it.
    """

    processes: int
    memory_bytes: int
    gpus: int
    gpu_bytes: int | None


def demand(recipe: Recipe) -> Demand:
    """What a recipe's needs and its estimated cost ask for."""
    parts = [need.partition(":") for need in recipe.needs()]
    amounts = {kind: float(what or 0) for kind, _, what in parts if kind not in ("package", "program")}
    needs_gpu = any(kind in amounts for kind in ("cuda", "gpu-gib", "gpus"))
    size = max(recipe.cost().gpu_bytes, int(amounts.get("gpu-gib", 0) * GIB))
    return Demand(
        processes=recipe.processes(),
        memory_bytes=int(amounts.get("memory-gib", 0) * GIB),
        gpus=int(amounts.get("gpus", 1)) if needs_gpu else 0,
        gpu_bytes=size if size or not needs_gpu else None,
    )


@dataclass(frozen=True)
class Place:
    """What a run was given: the names of its GPUs, the bytes on each, and what goes back with them."""

    cards: tuple[str, ...]
    bytes_each: int
    jobs: int
    memory_bytes: int


class Slots:
    """The room of one machine. A run that asks for more than there is gets all there is, once nothing else runs."""

    def __init__(self, jobs: int, cards: Sequence[Card], memory_bytes: int | None = None) -> None:
        self._jobs = self._free_jobs = jobs
        self._memory = self._free_memory = memory_bytes or psutil.virtual_memory().total
        self._size = {card.name: card.size_bytes for card in cards}
        self._free = dict(self._size)
        self._runs = dict.fromkeys(self._size, 0)

    @property
    def full(self) -> bool:
        """Whether there is no room for anything."""
        return self._free_jobs < 1

    def take(self, recipe: Recipe) -> Place | None:
        """Room for a run, until it is given back; None where there is none now.

        Where there are GPUs every run sees one, as it would alone: one that asks for no bytes takes no room on it.
        """
        wants = demand(recipe)
        jobs, memory = min(wants.processes, self._jobs), min(wants.memory_bytes, self._memory)
        if jobs > self._free_jobs or memory > self._free_memory:
            return None
        cards, each = (), 0
        if self._size:
            count = min(max(wants.gpus, 1), len(self._size))
            most = sorted(self._size.values())[-count]  # what each of so many can have
            each = most if wants.gpu_bytes is None else min(wants.gpu_bytes and wants.gpu_bytes + _PROCESS_BYTES, most)
            order = sorted(self._free, key=lambda name: (-self._free[name], self._runs[name]))
            cards = tuple([name for name in order if self._free[name] >= each][:count])
            if len(cards) < count:
                return None
        for name in cards:
            self._free[name] -= each
            self._runs[name] += 1
        self._free_jobs -= jobs
        self._free_memory -= memory
        return Place(cards, each, jobs, memory)

    def give(self, place: Place) -> None:
        """Take back what a run was given."""
        for name in place.cards:
            self._free[name] += place.bytes_each
            self._runs[name] -= 1
        self._free_jobs += place.jobs
        self._free_memory += place.memory_bytes
