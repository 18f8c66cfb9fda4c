"""A recipe for the tests: a regression of sixteen numbers, with a checkpoint after every step.

What the environment says (TINY_*) makes it slow, or fail; it is no part of the recipe, so the key stays.
"""

import os
import signal
import sys
import time
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import PositiveInt

from effbook.runs.recipe import Context, Cost, Recipe, Result, register_recipe


@register_recipe
@dataclass(frozen=True, kw_only=True)
class Tiny(Recipe):
    system: ClassVar[str] = "nola"
    name: ClassVar[str] = "tiny"

    rate: float = 0.1
    steps: PositiveInt = 6
    method: Literal["sgd", "adam"] = "adam"
    shape: tuple[PositiveInt, ...] = (4, 4)

    def cost(self) -> Cost:
        return Cost(seconds=360.0, gpu_bytes=2 * 2**30, disk_bytes=2**20)

    def needs(self) -> tuple[str, ...]:
        return tuple(filter(None, os.environ.get("TINY_NEEDS", "").split(",")))

    def run(self, context: Context) -> Result:
        import torch

        if log := os.environ.get("TINY_LOG"):
            with open(log, "a") as file:
                file.write(f"run {os.getpid()}\n")
        generator = torch.Generator().manual_seed(self.seed)
        x = torch.randn(16, 4, generator=generator)
        y = x.sum(1, keepdim=True)
        model = torch.nn.Linear(4, 1)
        with torch.no_grad():
            model.weight.normal_(generator=generator)
            model.bias.zero_()
        optimiser = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[self.method](model.parameters(), lr=self.rate)
        first, losses = 0, []
        if (found := context.resume()) is not None:
            state, first, extra = found
            model.load_state_dict(state["model"])
            optimiser.load_state_dict(state["optimiser"])
            generator.set_state(state["generator"])
            losses = extra["losses"]
        bar = context.progress(self.steps, "tiny", done=first)
        for step in range(first + 1, self.steps + 1):
            rows = torch.randint(16, (8,), generator=generator)
            loss = (model(x[rows]) - y[rows]).square().mean()
            if step == int(os.environ.get("TINY_NAN_AT", "0")):
                loss = loss * float("nan")
            losses.append(context.check_finite(loss, step))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            state = {
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "generator": generator.get_state(),
            }
            context.checkpoint(state, step, {"losses": losses})
            bar.advance(loss=losses[-1])
            if step == 2 and str(self.seed) == os.environ.get("TINY_KILLED_SEED"):
                os.kill(os.getpid(), signal.SIGKILL)  # as the system does when memory runs out
            time.sleep(float(os.environ.get("TINY_SLEEP_S", "0")))
        if os.environ.get("TINY_FAIL"):
            raise RuntimeError("the tiny run was told to fail")
        picture = context.folder / "picture.txt"
        picture.write_text(os.environ.get("TINY_PICTURE", f"seed {self.seed}"))
        metrics = {"loss": losses[-1], "steps": self.steps, "bleu": None}
        if os.environ.get("TINY_METRIC"):
            metrics["loss"] = float(os.environ["TINY_METRIC"])
        return Result(metrics, {"losses": losses}, {"picture": picture}, {"bleu": "there is no text"}, flops=128.0)


def main() -> None:
    """What a process of its own runs: `tiny_recipe.main()` with STEPS [--fresh]."""
    from effbook.runs.execute import execute

    execute(Tiny(steps=int(sys.argv[1])), profile="smoke", fresh="--fresh" in sys.argv)
