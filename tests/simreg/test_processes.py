"""Two processes distil as one does with the whole batch: queues, cache and heads."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

import effbook
from effbook.simreg import DistillSettings, distill


def network(dim, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(48, dim))  # without batch norm, which sees a part of the batch


def distil_here(folder):
    """What each process of the test below runs; with one process, the same distillation with the whole batch."""
    torch.set_num_threads(1)
    rank, folder = int(os.environ.get("RANK", "0")), Path(folder)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("gloo")
    images = torch.rand(20, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    for objective, head in (("simreg", "linear"), ("compress-1q", "linear"), ("compress-2q", "none")):
        settings = DistillSettings(
            objective=objective, head=head, epochs=2, batch=8, queue_size=16, temperature=0.5, distinct_views=1
        )
        student = network(4, seed=rank)  # the first process's weights must win
        done = distill(network(5, seed=9), student, images, settings=settings, cache=folder / "cache")
        weights = torch.cat([p.detach().flatten() for p in done.student.parameters()])
        torch.save({"loss": [h["loss"] for h in done.history], "weights": weights}, folder / f"{objective}-{rank}.pt")
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_distil_as_one_does(tmp_path):
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_processes as t; t.distil_here(sys.argv[2])"
    known = os.environ | {"PYTHONPATH": str(Path(effbook.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    known |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    (tmp_path / "two").mkdir()
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / "two")]
    two = [subprocess.Popen(command, env=known | {"RANK": str(rank)}, stderr=subprocess.PIPE) for rank in (0, 1)]
    try:
        distil_here(tmp_path)
        for process in two:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors.decode()[-2000:]
    finally:
        for process in two:
            process.kill()
    for objective in ("simreg", "compress-1q", "compress-2q"):
        alone = torch.load(tmp_path / f"{objective}-0.pt", weights_only=True)
        parts = [torch.load(tmp_path / "two" / f"{objective}-{rank}.pt", weights_only=True) for rank in (0, 1)]
        assert torch.equal(parts[0]["weights"], parts[1]["weights"])
        assert parts[0]["loss"] == pytest.approx(alone["loss"], rel=1e-4)
        torch.testing.assert_close(parts[0]["weights"], alone["weights"], rtol=1e-3, atol=1e-5)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
