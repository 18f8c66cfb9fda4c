"""The launcher of one machine: a process for each run, as many at a time as there is room for."""

import queue
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime

from effbook.runs import machine
from effbook.runs.recipe import Recipe
from effbook.runs.records import Record
from effbook.runs.slots import Place, Slots
from effbook.runs.worker import Worker

Pair = tuple[Recipe, str]  # a recipe and the profile that it runs under


def outcomes(
    pairs: Sequence[Pair], jobs: int, fresh_since: datetime | None
) -> Iterator[tuple[Pair, Record | Exception]]:
    """The outcomes in the order in which they come in; the cores are shared out among the processes."""
    cards = machine.cards()
    slots, threads = Slots(jobs, cards), max(1, machine.cores() // jobs)
    waiting, running = list(pairs), {}
    finished: queue.SimpleQueue[tuple[Pair, Record | Exception]] = queue.SimpleQueue()

    def run(pair: Pair, worker: Worker) -> None:
        try:
            finished.put((pair, worker.run(*pair, fresh_since)))
        except Exception as error:
            finished.put((pair, error))

    def start(pair: Pair, place: Place) -> None:
        worker = Worker(threads * place.jobs, place.cards if cards else None)
        running[pair] = worker, place
        threading.Thread(target=run, args=(pair, worker), daemon=True).start()  # it waits for the process

    try:
        while waiting or running:
            for pair in list(waiting):
                if slots.full:
                    break
                if (place := slots.take(pair[0])) is not None:
                    waiting.remove(pair)
                    start(pair, place)
            pair, outcome = finished.get()
            worker, place = running.pop(pair)
            worker.close()
            slots.give(place)
            yield pair, outcome
    finally:
        for worker, _ in running.values():
            worker.close()
