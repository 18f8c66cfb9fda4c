"""The launcher of a Ray cluster: each run in a process that Ray places, its record sent back as bytes.

No disk need be shared: what a run depends on is sent along, and the data are fetched where it runs. A run whose process
is killed is tried again, if it can be on the same machine, where its checkpoint lies. Runs that share work follow one
another on one machine. Each machine has effbook installed, the same as here: a record of other code is refused.
"""

import os
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from effbook.errors import EffbookError
from effbook.runs import cache, intake, one, records
from effbook.runs.orders import environment, order_of
from effbook.runs.records import Record
from effbook.runs.shards import Pair, units
from effbook.runs.slots import Demand, demand

TRIES = 4
_CORES = 2  # of a process, as the estimates have it


class Runner:
    """What lives in a process of Ray's; it does one run."""

    def node(self) -> str:
        """The machine that it is on, as Ray calls it."""
        import ray

        return ray.get_runtime_context().get_node_id()

    def run(self, order: dict[str, Any], given: dict[str, bytes]) -> dict[str, Any]:
        """The answer to an order, in a records' folder that holds what is given and lasts as long as the run."""
        with tempfile.TemporaryDirectory() as folder:
            os.environ["EFFBOOK_RECORDS"] = folder
            one.put(given, Path(folder))
            return one.answer(order)


@dataclass
class _Unit:
    """Runs that follow one another on one machine."""

    pairs: deque[Pair]
    node: str | None = None
    tries: int = 0


@dataclass
class _Room:
    """What the cluster has free for us, by Ray's names."""

    free: dict[str, float]
    most: dict[str, float] = field(default_factory=dict)  # on one machine

    def options(self, wants: Demand) -> dict[str, float]:
        """What to ask Ray for. EffbookError if no machine has it."""
        if wants.gpus > self.most.get("GPU", 0):
            raise EffbookError(f"it needs {wants.gpus} GPU, which no machine of the cluster has", "add one that has")
        return {"num_cpus": min(_CORES * wants.processes, self.most.get("CPU", 1)), "num_gpus": wants.gpus}

    def take(self, options: dict[str, float]) -> bool:
        """Whether there is room; it is taken then."""
        asked = {"CPU": options["num_cpus"], "GPU": options["num_gpus"]}
        if any(self.free.get(name, 0) < amount for name, amount in asked.items()):
            return False
        self._add(asked, -1)
        return True

    def give(self, options: dict[str, float]) -> None:
        """Take back."""
        self._add({"CPU": options["num_cpus"], "GPU": options["num_gpus"]}, 1)

    def _add(self, asked: dict[str, float], sign: int) -> None:
        for name, amount in asked.items():
            self.free[name] = self.free.get(name, 0) + sign * amount


def outcomes(
    pairs: Sequence[Pair], address: str, fresh_since: datetime | None
) -> Iterator[tuple[Pair, Record | Exception]]:
    """The outcomes in the order in which they come in, by the cluster at `address`; "" starts one on this machine."""
    with _connected(address) as ray:
        room = _room(ray)
        runner = ray.remote(max_restarts=0)(Runner)
        waiting = [_Unit(deque(unit)) for unit in units(pairs)]
        running: dict[Any, tuple[_Unit, Any, dict]] = {}
        try:
            while waiting or running:
                for unit in list(waiting):
                    recipe, profile = pair = unit.pairs[0]
                    try:
                        done = _made_in_passing(pair, fresh_since)
                        options = room.options(demand(recipe))
                    except EffbookError as error:
                        done = error
                    if done is not None:
                        unit.pairs.popleft()
                        if not unit.pairs:
                            waiting.remove(unit)
                        yield pair, done
                    elif room.take(options):
                        waiting.remove(unit)
                        actor = runner.options(**options, **_near(ray, unit)).remote()
                        order, given = order_of(recipe, profile, fresh_since), one.needed_by(recipe, profile)
                        node = actor.node.remote()  # before the run, behind which it would wait
                        running[actor.run.remote(order, given)] = unit, actor, options | {"node": node}
                if not running:
                    continue
                ref = ray.wait(list(running), num_returns=1)[0][0]
                unit, actor, options = running.pop(ref)
                unit.node = _told(ray, options.pop("node")) or unit.node
                room.give(options)
                outcome = _outcome(ray, ref, unit, fresh_since)
                ray.kill(actor)
                if outcome is not None:
                    yield unit.pairs.popleft(), outcome
                if unit.pairs:
                    waiting.insert(0, unit)
        finally:
            for _, actor, _ in running.values():
                ray.kill(actor)


def _outcome(ray: ModuleType, ref: Any, unit: _Unit, fresh_since: datetime | None) -> Record | Exception | None:
    """The record that came back, or what went wrong; None where the run is to be tried again."""
    unit.tries += 1
    errors = ray.exceptions
    try:
        told = ray.get(ref)
    except (errors.RayActorError, errors.WorkerCrashedError, errors.OutOfMemoryError, errors.NodeDiedError) as error:
        if unit.tries < TRIES:
            return None
        unit.tries = 0
        why = type(error).__name__
        return EffbookError(f"its process was killed {TRIES} times ({why})", "see Ray's logs, or run it alone")
    except errors.RayError as error:
        unit.tries = 0
        first = str(error).strip().splitlines()[-1]
        return EffbookError(f"Ray could not run it ({first})", "install the same effbook on each machine")
    unit.tries = 0
    try:
        if (failure := one.failure_in(told)) is None:
            intake.take(told["files"], fresh_since=fresh_since)
            return records.find(*unit.pairs[0])
    except EffbookError as error:
        return error
    return failure


def _made_in_passing(pair: Pair, fresh_since: datetime | None) -> Record | None:
    """The record of a run that another one needed, and made."""
    found = records.find(*pair)
    if found is None or not cache.is_fresh(found.provenance.created, fresh_since) or records.is_stale(found):
        return None
    return found


def _near(ray: ModuleType, unit: _Unit) -> dict[str, Any]:
    """To be placed where the unit's runs were before, if that machine is still there."""
    if unit.node is None:
        return {}
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(unit.node, soft=True)}


def _told(ray: ModuleType, ref: Any) -> str | None:
    try:
        return ray.get(ref, timeout=1)
    except ray.exceptions.RayError:  # it died before it said where it was
        return None


def _room(ray: ModuleType) -> _Room:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    sums, most = {}, {}
    for name in ("CPU", "GPU"):
        amounts = [resources.get(name, 0.0) for resources in nodes]
        sums[name], most[name] = sum(amounts), max(amounts, default=0.0)
    return _Room(sums, most)


@contextmanager
def _connected(address: str) -> Iterator[ModuleType]:
    """Ray, connected; what is started for this is ended."""
    import ray

    if ray.is_initialized():
        yield ray
        return
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = environment(1)["PYTHONPATH"]  # a cluster that starts here runs the code that runs here
    try:
        ray.init(address or None, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError) as error:
        where = address or "on this machine"
        raise EffbookError(f"there is no Ray cluster {where} ({error})", "start one by 'ray start --head'") from None
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
    try:
        yield ray
    finally:
        ray.shutdown()
