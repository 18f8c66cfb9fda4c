"""Recipes' smokes on a stand-in for a graphics card, which refuses what CUDA refuses.

CompGS's are not among them: what renders is numba on the CPU and gsplat on CUDA, and neither takes the stand-in.
"""

import numpy as np
import pytest
import torch
from mixed_devices import NAME, MixedDevicesError, card

from effbook import experiments
from effbook.exhibits.register import recipes_of_exhibit, register
from effbook.runs.recipe import Context, Recipe


def kinds() -> dict[str, Recipe]:
    """The runs that the register has under smoke, one of those that differ in numbers only."""
    experiments.load()
    found: dict[tuple, Recipe] = {}
    for one in register().values():
        for recipe in (r for r in recipes_of_exhibit(one, "smoke") if r.system != "compgs"):
            told = (v if isinstance(v, str | bool) or v is None else type(v) for v in recipe.fields.values())
            found.setdefault((recipe.name, *told), recipe)
    return {f"{recipe.name}-{recipe.key}": recipe for recipe in found.values()}


@pytest.mark.parametrize("recipe", kinds().values(), ids=kinds())
def test_a_smoke_run_mixes_no_devices(tmp_path, recipe):
    context = Context(profile="smoke", folder=tmp_path)
    context.device = NAME
    with card():
        assert recipe.run(context).metrics


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
