"""A distillation of this chapter as a recipe: the record of how it went."""

import json
from dataclasses import dataclass
from typing import ClassVar

from effbook.experiments.simreg.settings import Distillation
from effbook.runs.recipe import Context, Result, register_recipe


@register_recipe
@dataclass(frozen=True, kw_only=True)
class DistillRecipe(Distillation):
    """Distil, and tell the loss of each epoch and what is trained and thrown away."""

    name: ClassVar[str] = "simreg-distill"

    def run(self, context: Context) -> Result:
        from effbook.experiments.simreg.learning import distilled

        history = json.loads((distilled(self, context) / "history.json").read_text(encoding="utf-8"))
        metrics = {name: history[name] for name in ("parameters", "head_parameters")} | history["broken"]
        return Result(metrics=metrics | {"loss": history["loss"][-1]}, series={"loss": history["loss"]})
