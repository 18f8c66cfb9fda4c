"""The chapter's lines of the ledger: which there are, and the parts that need no clock."""

import os
import sys

import pytest

from effbook.errors import EffbookError
from effbook.experiments.nola import bench
from effbook.runs import bench as ledger


def test_every_figure_that_the_chapter_must_reach_has_a_line():
    thresholds = {one.name: one.threshold for one in ledger.benches("nola")}
    assert thresholds["step: shared basis / LoRA r=4"] == "<= 1.05"
    assert thresholds["step: basis per layer / LoRA r=4"] == "<= 1.15"
    assert thresholds["step: PRANC / NOLA, ResNet-18"] == ">= 4.6"
    assert thresholds["peak memory: k=4000 / k=250, regenerated"] == "<= 1.05"
    assert [t for name, t in thresholds.items() if name.startswith("checkpoint") and "KiB" in name] == ["<= 1"] * 5


@pytest.mark.slow
def test_a_checkpoint_of_four_bits_keeps_its_bound_and_undercuts_lora():
    assert bench.checkpoint_beside_bound(4).value <= 1
    assert bench.checkpoint_beside_lora(4).value < 0.25


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a process its peak")
def test_the_peak_would_show_a_basis_that_is_held():
    held, regenerated = (bench.in_a_process(bench.peak_bytes, 1000, regenerate) for regenerate in (False, True))
    basis = 6 * 1000 * 4 * (384 + 1536) * 4  # layers, matrices, rank, m + n, bytes
    assert 0.7 * basis < held - regenerated < 1.6 * basis


@pytest.mark.slow
def test_a_measuring_process_that_the_system_kills_is_one_sentence():
    with pytest.raises(EffbookError, match="the measuring process was killed"):
        bench.in_a_process(os._exit, 9)


@pytest.mark.parametrize("kind", ["lora", "shared", "per layer"])
def test_both_sides_of_a_step_adapt_the_same_layers(kind):
    step = bench.vit_step(kind)
    model = step.__closure__[[name for name in step.__code__.co_freevars].index("model")].cell_contents
    trained = {name.split(".")[2] for name, p in model.named_parameters() if p.requires_grad and "blocks" in name}
    assert trained == {str(i) for i in range(9)}
    counts = {"lora": 9 * 2 * 4 * 768, "shared": 9 * 2 * 2 * 512, "per layer": 9 * 2 * 2 * 512}
    assert sum(p.numel() for p in model[0].parameters() if p.requires_grad) == counts[kind]
