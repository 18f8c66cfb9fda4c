"""A victim's training and a patch's training as recipes: the records of how they went."""

import json
from dataclasses import dataclass
from typing import ClassVar

from effbook.errors import EffbookError
from effbook.experiments.slowformer.settings import Attack, Victim
from effbook.runs.recipe import Context, Result, register_recipe


@register_recipe
@dataclass(frozen=True, kw_only=True)
class VictimRecipe(Victim):
    """Train a victim, and tell its loss, its accuracy and its cost on the batches, step by step."""

    name: ClassVar[str] = "slowformer-victim"

    def run(self, context: Context) -> Result:
        from effbook.experiments.slowformer.victims import trained

        if self.weights == "official":
            raise EffbookError("official weights are not trained here", 'choose weights "trained"')
        history = json.loads((trained(self, context) / "history.json").read_text(encoding="utf-8"))
        series = {name: values for name, values in history.items() if values}
        return Result(metrics={f"last_{name}": values[-1] for name, values in series.items()}, series=series)


@register_recipe
@dataclass(frozen=True, kw_only=True)
class PatchRecipe(Attack):
    """Train a patch, and tell its loss step by step."""

    name: ClassVar[str] = "slowformer-patch"

    def run(self, context: Context) -> Result:
        from effbook.experiments.slowformer.patches import attacked

        history = json.loads((attacked(self, context) / "history.json").read_text(encoding="utf-8"))
        losses = history["losses"][0]
        return Result(metrics={"loss": losses[-1] if losses else None}, series={"loss": losses})
