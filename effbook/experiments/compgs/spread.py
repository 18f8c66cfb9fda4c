"""How far runs that differ in nothing but their seed lie apart (Table B.4)."""

import dataclasses
import statistics
from dataclasses import dataclass
from typing import ClassVar

from effbook.errors import EffbookError
from effbook.experiments.compgs.scene import SceneRecipe
from effbook.runs.recipe import Context, Cost, Result, register_recipe


@register_recipe
@dataclass(frozen=True, kw_only=True)
class SpreadRecipe(SceneRecipe):
    """`compgs-scene` with `runs` seeds from `seed` x `runs` on; least, most, mean, difference and deviation of PSNR."""

    name: ClassVar[str] = "compgs-spread"

    runs: int = 20

    def validate(self) -> None:
        super().validate()
        if self.runs < 2:
            raise EffbookError(f"runs is {self.runs}", "give at least 2: one run has no spread")

    def cost(self) -> Cost:
        once = super().cost()
        return dataclasses.replace(once, seconds=once.seconds * self.runs)

    def run(self, context: Context) -> Result:
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(SceneRecipe)}
        found = []
        for i in range(self.runs):
            once = SceneRecipe(**fields | {"seed": self.seed * self.runs + i})
            found.append(once.run(context).metrics["psnr"])
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
