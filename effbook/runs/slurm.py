"""A script that hands shards to Slurm: an array for each sort of machine that they need, put back when time is up."""

import shlex
from collections.abc import Sequence
from itertools import groupby

from effbook.runs import shards
from effbook.runs.machine import GIB
from effbook.runs.shards import Pair
from effbook.runs.slots import Demand

_CORES = 2  # of a process, as the estimates have it
_ARRAY = """\
sbatch <<'END'
#!/bin/bash
#SBATCH --job-name=effbook
#SBATCH --array={array}
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={cores}
{resources}#SBATCH --time={hours}:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=effbook-%A-%a.log
again() {{  # the time is up: the next turn goes on from the checkpoint
    kill "$run"; wait "$run"
    scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
    exit 0
}}
trap again USR1
{command} --shard "$SLURM_ARRAY_TASK_ID/{count}" &
run=$!
wait "$run"
END
"""


def script(pairs: Sequence[Pair], count: int, command: Sequence[str], *, hours: int) -> str:
    """The text of a shell script; `command` runs all of `pairs`, and gets a shard in each job of `hours` at most."""
    found = shards.shards(pairs, count)
    numbered = [(i, shards.largest(runs)) for i, runs in enumerate(found, 1) if runs]
    most = max((shards.seconds_of(runs) for runs in found), default=0) / 3600
    head = (
        "#!/bin/sh\n"
        f"# {len(pairs)} runs in {len(numbered)} shards, the largest about {most:.0f} hours of work on one machine.\n"
        "# Call it by sh in the environment that has effbook; SBATCH_ACCOUNT and SBATCH_PARTITION name yours.\n"
        "# What is recorded is passed over. Records that are on no shared disk: effbook records add FOLDER.\n"
        "set -e\n"
    )
    arrays = []
    for wants, group in groupby(numbered, key=lambda one: one[1]):
        array = _ranges([i for i, _ in group])
        told = {"array": array, "cores": _CORES * wants.processes, "hours": hours, "count": count}
        arrays.append(_ARRAY.format(**told, resources=_resources(wants), command=shlex.join(command)))
    return "\n".join([head, *arrays])


def _resources(wants: Demand) -> str:
    lines = []
    if wants.gpus:
        lines.append(f"#SBATCH --gres=gpu:{wants.gpus}")
    if wants.gpu_bytes:
        lines.append(f"# a GPU with {wants.gpu_bytes / GIB:.0f} GiB: name one by --constraint or another --gres")
    if wants.memory_bytes:
        lines.append(f"#SBATCH --mem={wants.memory_bytes // GIB}G")
    return "".join(f"{line}\n" for line in lines)


def _ranges(numbers: list[int]) -> str:
    """Such as 1-3,5 of 1, 2, 3, 5."""
    runs = [[one for _, one in group] for _, group in groupby(enumerate(numbers), key=lambda one: one[1] - one[0])]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
