"""One of the processes that do a run together; `torchrun` starts it as a module (see `ranks`)."""

import importlib
import json
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from effbook.errors import EffbookError
from effbook.files import write_atomically
from effbook.runs.execute import surroundings
from effbook.runs.memory import PeakMemory
from effbook.runs.orders import end_with_input
from effbook.runs.progress import Display
from effbook.runs.ranks import FAILURE, RankContext, rank_here
from effbook.runs.recipe import make


def main() -> None:
    """One rank: run the recipe of the order, and leave what it gave."""
    order = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(order["folder"])
    try:
        _run(order, folder)
    except BaseException as error:
        told = {"error": f"{type(error).__name__}: {error}"}
        if isinstance(error, EffbookError):
            told = {"cause": error.cause, "remedy": error.remedy}
        if not (folder / FAILURE).exists():  # the others fail because one did
            write_atomically(folder / FAILURE, json.dumps(told))
        raise


def _run(order: dict[str, Any], folder: Path) -> None:
    import torch
    import torch.distributed as dist

    end_with_input()
    for module in order["modules"]:
        importlib.import_module(module)
    recipe = make(order["name"], **order["fields"])
    apart = torch.cuda.device_count() >= recipe.processes()
    if apart:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if apart else "gloo")
    since = order["fresh_since"] and datetime.fromisoformat(order["fresh_since"])
    display = Display(quiet=rank_here() > 0)
    context = surroundings(order["profile"], folder, display, since, kind=RankContext)
    with PeakMemory() as peak:
        context.peak_bytes = lambda: peak.size_bytes
        result = recipe.run(context)
    told = {"peak_bytes": peak.size_bytes, "gpu_bytes": peak.gpu_bytes}
    if rank_here() == 0:
        told["result"] = {name: getattr(result, name) for name in result.__dataclass_fields__}
        told["result"]["artifacts"] = {name: str(path) for name, path in result.artifacts.items()}
        told |= {"taken": [one.model_dump() for one in context.taken], "device": context.device_used}
        told |= {"seconds_before": context.seconds_before, "peak_before_bytes": context.peak_before_bytes}
    write_atomically(folder / f"rank-{rank_here()}.json", json.dumps(told))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
