"""How far runs that differ in nothing but their seed lie apart (Table B.4)."""

import dataclasses
import statistics
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from effbook.experiments.compgs.scene import SceneRecipe
from effbook.runs.recipe import Context, Cost, Result, Shared, register_recipe


@register_recipe
@dataclass(frozen=True, kw_only=True)
class SpreadRecipe(SceneRecipe):
    """`compgs-scene` with `runs` seeds from `seed` x `runs` on; least, most, mean, difference and deviation of PSNR."""

    name: ClassVar[str] = "compgs-spread"
    varying: ClassVar[tuple[str, ...]] = ()

    runs: Annotated[int, Field(ge=2)] = 20  # one run has no spread

    def cost(self) -> Cost:
        once = super().cost()
        return dataclasses.replace(once, seconds=once.seconds * self.runs)

    def shares(self) -> tuple[Shared, ...]:
        return tuple(part for once in self._each() for part in once.shares())

    def probe(self) -> dict[str, object]:
        """Two of the runs, each cut as `compgs-scene` is."""
        return super().probe() | {"runs": 2}

    def run(self, context: Context) -> Result:
        found = [once.run(context).metrics["psnr"] for once in self._each()]
        return Result(
            metrics={
                "min": min(found),
                "max": max(found),
                "mean": statistics.fmean(found),
                "diff": max(found) - min(found),
                "std": statistics.pstdev(found),
            },
            series={"psnr by seed": found},
        )

    def _each(self) -> list[SceneRecipe]:
        return [self.plain(seed=seed) for seed in range(self.seed * self.runs, (self.seed + 1) * self.runs)]
