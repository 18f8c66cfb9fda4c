"""A run by several processes of one machine, as `torchrun --standalone` starts them; rank 0 writes.

Who asks holds the locks, and gets the result of rank 0 as a file in the work folder. If one process fails, all end; the
next call goes on from the checkpoint. Kept results may be asked for in any rank: the first makes them, the others wait.
Whether a checkpoint is due is for the ranks to agree on where its making needs all of them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effbook.errors import EffbookError
from effbook.files import write_atomically
from effbook.runs import machine
from effbook.runs.cache import Taken
from effbook.runs.context import Context
from effbook.runs.memory import PeakMemory
from effbook.runs.orders import environment, order_of

if TYPE_CHECKING:
    from effbook.runs.recipe import Recipe, Result

FAILURE, RANK = "failure.json", "effbook.runs.rank"


class RankContext(Context):
    """The surroundings of one of several processes: rank 0 saves, and all begin at the same checkpoint."""

    def checkpoint(self, state: dict[str, Any], step: int, extra: dict[str, Any] | None = None) -> None:
        """As in `Context`; of another rank than 0 only the step counts."""
        if rank_here() == 0:
            super().checkpoint(state, step, extra)

    def resume(self) -> tuple[dict[str, Any], int, dict[str, Any]] | None:
        """As in `Context`; none goes on before all have read."""
        import torch.distributed as dist

        found = super().resume()
        dist.barrier()
        return found


def run_together(recipe: "Recipe", context: Context, peak: PeakMemory) -> "Result":
    """The result of a run by `recipe.processes()` processes; `peak` gets the sum of what they took."""
    count, folder = recipe.processes(), context.folder
    for left in (*folder.glob("rank-*.json"), folder / FAILURE):
        left.unlink(missing_ok=True)
    order = order_of(recipe, context.profile, context.fresh_since)
    write_atomically(folder / "order.json", json.dumps(order | {"folder": str(folder)}))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command = [sys.executable, *command, "-m", RANK, str(folder / "order.json")]
    given = os.environ.get(machine.THREAD_VARIABLES[0], "")
    threads = max(1, (int(given) if given.isdigit() else machine.cores()) // count)
    surroundings = environment(threads) | dict.fromkeys(machine.THREAD_VARIABLES, str(threads))  # shared out among them
    # each of them ends when its standard input does: when this process is gone
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=2, env=surroundings)
    try:
        status = process.wait()
    finally:
        process.stdin.close()
        process.wait()
    if status != 0:
        raise _failure(folder, status)
    told = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(count)]
    peak.size_bytes = max(peak.size_bytes, sum(one["peak_bytes"] for one in told))
    if any(one["gpu_bytes"] is not None for one in told):
        peak.gpu_bytes = max(one["gpu_bytes"] or 0 for one in told)
    return _result(told[0], context)


def _result(told: dict[str, Any], context: Context) -> "Result":
    """The result that rank 0 left, and what its context knew put into this one."""
    from effbook.runs.recipe import Result

    context.taken = [Taken(**one) for one in told["taken"]]
    context.seconds_before, context.peak_before_bytes = told["seconds_before"], told["peak_before_bytes"]
    context.device = told["device"]
    artifacts = {name: Path(path) for name, path in told["result"].pop("artifacts").items()}
    return Result(**told["result"], artifacts=artifacts)


def _failure(folder: Path, status: int) -> Exception:
    try:
        told = json.loads((folder / FAILURE).read_text())
    except (OSError, ValueError):
        return EffbookError(f"one of its processes ended with status {status}", "see what it printed, or call again")
    return EffbookError(told["cause"], told["remedy"]) if "cause" in told else RuntimeError(told["error"])


def rank_here() -> int:
    return int(os.environ["RANK"])
