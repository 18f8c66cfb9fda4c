"""A series of stages of the cross-modal table (A.1.2, Table A.4) as a recipe: the record of how the last one went."""

import json
from dataclasses import dataclass
from typing import ClassVar

from effbook.experiments.cmsf.stages import Stages
from effbook.runs.recipe import Context, Result, register_recipe


@register_recipe
@dataclass(frozen=True, kw_only=True)
class ModalTrainRecipe(Stages):
    """Train the stages that are not kept yet, and tell how the last one went."""

    name: ClassVar[str] = "cmsf-modal-train"
    varying: ClassVar[tuple[str, ...]] = ("step_ms",)

    def run(self, context: Context) -> Result:
        from effbook.experiments.cmsf.modal_training import trained

        history = json.loads((trained(self, context) / "history.json").read_text(encoding="utf-8"))
        epochs = history["epochs"]
        return Result(
            metrics={**epochs[-1], **history["broken"], "step_ms": history["step_ms"]},
            series={name: [one[name] for one in epochs if name in one] for name in epochs[-1]},
        )
