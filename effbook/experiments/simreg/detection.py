"""Fine-tuning a distilled backbone for object detection (Table 2.12)."""

from dataclasses import dataclass
from typing import ClassVar

from effbook.experiments.simreg.settings import Distillation
from effbook.runs.recipe import Context, Result, register_recipe


@register_recipe
@dataclass(frozen=True, kw_only=True)
class DetectionRecipe(Distillation):
    """x"""

    name: ClassVar[str] = "simreg-detection"

    def run(self, context: Context) -> Result:
        raise NotImplementedError
