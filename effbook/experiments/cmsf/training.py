"""A training of this chapter as a recipe: the record of how it went (purity, ranks, pseudo-labels)."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from effbook.experiments.cmsf.settings import Training
from effbook.runs.recipe import Context, Result, register_recipe

if TYPE_CHECKING:
    from torch import nn


@register_recipe
@dataclass(frozen=True, kw_only=True)
class TrainRecipe(Training):
    """Train, and tell at a moment of the training what its neighbours and pseudo-labels were like."""

    name: ClassVar[str] = "cmsf-train"
    varying: ClassVar[tuple[str, ...]] = ("step_ms", "days")

    moment: Literal["early", "middle", "late", "end"] = "end"

    def network(self, context: Context) -> "nn.Module":
        """The trained encoder in evaluation mode, [B, ...] to [B, num_features]: for who takes it as a teacher."""
        from effbook.experiments.cmsf.inputs import kept_encoder
        from effbook.experiments.cmsf.learning import trained

        return kept_encoder(self, trained(self, context))

    def run(self, context: Context) -> Result:
        from effbook.experiments.cmsf.learning import trained
        from effbook.experiments.cmsf.recording import epoch_of

        history = json.loads((trained(self, context) / "history.json").read_text(encoding="utf-8"))
        epochs = history["epochs"]
        found = epochs[epoch_of(self.moment, len(epochs))] if epochs else {}
        return Result(
            metrics={
                **found,
                **history["broken"],
                "step_ms": history["step_ms"],
                "days": history["days"],
                "trainable": history["trainable"],
            },
            series={  # without the first epochs where there was nothing to look at
                **{name: [one[name] for one in epochs if name in one] for name in (epochs[-1] if epochs else {})},
                **history["moments"],
            },
        )
