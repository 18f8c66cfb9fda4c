"""Several processes of one machine: rank 0 writes, and a run that fails in one rank fails, and goes on when called."""

import os
from dataclasses import dataclass
from typing import ClassVar

import pytest

from effbook.errors import EffbookError
from effbook.runs import records
from effbook.runs.execute import execute, work_folder
from effbook.runs.recipe import Recipe, Result, register_recipe


@register_recipe
@dataclass(frozen=True, kw_only=True)
class Together(Recipe):
    """Sums over the ranks, a step at a time."""

    system: ClassVar[str] = "nola"
    name: ClassVar[str] = "tiny-together"

    def processes(self):
        return 2

    def run(self, context):
        import torch
        import torch.distributed as dist

        found = context.resume()
        first, total = (found[1], found[0]["total"]) if found else (0, torch.zeros(()))
        for step in range(first + 1, 5):
            part = torch.tensor(float(10 * step + dist.get_rank()))
            dist.all_reduce(part)
            total = total + part
            context.checkpoint({"total": total}, step)
            if step == 2 and found is None and dist.get_rank() == 1 and os.environ.get("TINY_FAIL"):
                raise EffbookError("rank 1 was told to fail", "call again")
        name = context.folder / f"rank-{dist.get_rank()}.txt"
        name.write_text(f"{dist.get_world_size()}")
        return Result({"total": float(total), "first": first}, artifacts={"told": name})


@pytest.mark.slow
def test_ranks_make_one_record_and_go_on_after_one_has_failed(folders, monkeypatch):
    monkeypatch.setenv("TINY_FAIL", "1")
    with pytest.raises(EffbookError, match="rank 1 was told to fail"):
        execute(Together(), profile="smoke", quiet=True)
    assert records.find(Together(), "smoke") is None
    assert (work_folder(Together(), "smoke") / "checkpoint.pt").exists()
    record = execute(Together(), profile="smoke", quiet=True)
    assert record.metrics["total"] == sum(20 * step + 1 for step in range(1, 5))
    assert record.metrics["first"] >= 1
    assert record.artifact("told").read_text() == "2"
    assert record.artifact("told").name.startswith("rank-0")
    assert not work_folder(Together(), "smoke").exists()
