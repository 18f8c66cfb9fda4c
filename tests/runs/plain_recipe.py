"""A recipe for the tests of launchers that needs no torch: it counts, and leaves in its work folder how far it is.

What the environment says (PLAIN_*) makes it slow, has it killed or writes down who ran it.
"""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from effbook.runs.recipe import Context, Cost, Recipe, Result, Shared, register_recipe


@register_recipe
@dataclass(frozen=True, kw_only=True)
class Plain(Recipe):
    system: ClassVar[str] = "nola"
    name: ClassVar[str] = "plain"

    steps: int = 4
    shared: str = ""
    need: tuple[str, ...] = ()
    after: int = -1  # the seed of another run whose record this one takes
    gib: int = 0
    hours: float = 1.0

    def cost(self) -> Cost:
        return Cost(seconds=3600 * self.hours, gpu_bytes=self.gib << 30)

    def needs(self) -> tuple[str, ...]:
        return self.need

    def shares(self) -> tuple[Shared, ...]:
        return (Shared("plain-shared", {"of": self.shared}, 1800.0),) if self.shared else ()

    def depends(self) -> "tuple[Recipe, ...]":
        return (Plain(seed=self.after),) if self.after >= 0 else ()

    def run(self, context: Context) -> Result:
        if log := os.environ.get("PLAIN_LOG"):
            with open(log, "a") as file:
                file.write(f"{self.seed} {os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES', 'all')}\n")
        told = [context.record_of(other).metrics["sum"] for other in self.depends()]
        state = context.folder / "state.txt"
        done = [int(line) for line in state.read_text().split()] if state.exists() else []
        for step in range(len(done), self.steps):
            done.append(step * (self.seed + 1))
            state.write_text("\n".join(map(str, done)))
            if step == 1 and str(self.seed) == os.environ.get("PLAIN_KILLED_SEED"):
                os.kill(os.getpid(), signal.SIGKILL)  # once: a run that goes on begins after this step
            time.sleep(float(os.environ.get("PLAIN_SLEEP_S", "0")))
        if os.environ.get("PLAIN_FAIL") == str(self.seed):
            raise ValueError("it was told to fail")
        picture = context.folder / "picture.txt"
        picture.write_text(f"seed {self.seed}")
        return Result({"sum": sum(done) + sum(told)}, {"steps": done}, {"picture": Path(picture)})
