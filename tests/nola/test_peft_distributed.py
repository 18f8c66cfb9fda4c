"""NOLA through peft in two processes: DDP and FSDP train and save what one process does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parent / "peft_distributed.py"


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch is built without torch.distributed")
def test_two_processes_train_and_save_what_one_does(tmp_path):
    """DDP, and FSDP of both versions however it wraps; own, shared and regenerated bases; two steps, then saved."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT), str(tmp_path)],
        env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    ways = ("ddp", "fsdp_whole", "fsdp_blocks", "fsdp_as_peft_wraps", "fsdp_2")
    assert done.stdout.splitlines() == [f"{way}, {kept}: alike" for way in ways for kept in ("own", "shared", "anew")]
