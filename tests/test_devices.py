"""Recipes' smokes on a stand-in for a graphics card, which refuses what CUDA refuses.

CompGS's are not among them: what renders is numba on the CPU and gsplat on CUDA, and neither takes the stand-in. Nor
are CMSF's trainings yet: what they keep in the cache goes by device, and the stand-in is none that the engine knows.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mixed_devices import NAME, MixedDevicesError, card

import effbook
from effbook import experiments
from effbook.exhibits.register import recipes_of_exhibit, register
from effbook.runs.recipe import Context, Recipe

TRAINED = ("cmsf-train", "cmsf-nearest", "cmsf-linear", "cmsf-finetune", "cmsf-transfer", "cmsf-transfer-mean")
FROM_RECORDS = ("simreg-transfer-mean",)  # they compute nothing


def kinds() -> dict[str, Recipe]:
    """The runs that the register has under smoke, one of those that differ in numbers only."""
    experiments.load()
    found: dict[tuple, Recipe] = {}
    for one in register().values():
        for recipe in (r for r in recipes_of_exhibit(one, "smoke") if r.system != "compgs"):
            if recipe.name in (*TRAINED, *FROM_RECORDS):
                continue
            told = (v if isinstance(v, str | bool) or v is None else type(v) for v in recipe.fields.values())
            found.setdefault((recipe.name, *told), recipe)
    return {f"{recipe.name}-{recipe.key}": recipe for recipe in found.values()}


def run_all() -> None:
    """Print a line for each smoke run that mixes devices, or fails otherwise; and at the end how many have run."""
    for name, recipe in kinds().items():
        with tempfile.TemporaryDirectory() as folder, card():
            context = Context(profile="smoke", folder=Path(folder))
            context.device = NAME
            try:
                assert recipe.run(context).metrics
            except Exception as error:
                print(f"{name}: {type(error).__name__}: {error}")
    print(f"{len(kinds())} have run")


@pytest.mark.slow
def test_no_smoke_run_mixes_devices():
    # in a process of its own: the backend must be known before anything in the process has called backward
    paths = [str(Path(__file__).parent), str(Path(effbook.__file__).parents[1])]
    known = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", "import test_devices; test_devices.run_all()"]
    done = subprocess.run(command, env=known, capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"{len(kinds())} have run"], done.stdout + done.stderr[-2000:]


def test_what_a_card_refuses_is_refused():
    with card():
        there, here = torch.ones(3, device=NAME), torch.ones(3)
        for wrong in (
            lambda: there + here,
            lambda: torch.cat([there, here]),
            lambda: here[there.long()],
            lambda: torch.nn.functional.linear(there, torch.ones(2, 3)),
            lambda: there.normal_(generator=torch.Generator()),
            lambda: torch.randn(3, generator=torch.Generator(), device=NAME),
            lambda: there.numpy(),
            lambda: np.asarray(there),
        ):
            with pytest.raises(MixedDevicesError):
                wrong()


def test_what_a_card_takes_is_taken():
    with card():
        there = torch.arange(4.0, device=NAME)
        assert (there + torch.tensor(1.0)).device.type == NAME
        assert there[torch.tensor([0, 2])].tolist() == [0, 2]
        there.copy_(torch.ones(4))
        assert there.cpu().sum().item() == 4
