"""The lengths of the features of students and teachers (A.2.2.5): nothing is trained."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from effbook.experiments.shared.arithmetic import register_arithmetic
from effbook.runs.recipe import Context, Recipe, Result


@register_arithmetic
@dataclass(frozen=True, kw_only=True)
class DimensionRecipe(Recipe):
    """The length of a network's pooled features, and its trainable parameters without a classifier."""

    system: ClassVar[str] = "simreg"
    name: ClassVar[str] = "simreg-dimension"

    network: Literal["resnet18", "mobilenet-v2", "resnet50", "resnet50-x4"]

    def run(self, context: Context) -> Result:
        from effbook.backbones.convnets import new_mobilenet_v2, resnet
        from effbook.backbones.teachers import RESNET50X4, trunk_of
        from effbook.experiments.shared.training import trainable

        made = {"mobilenet-v2": new_mobilenet_v2, "resnet50-x4": lambda: trunk_of(RESNET50X4)}
        network = made[self.network]() if self.network in made else resnet(self.network)
        return Result(metrics={"dimension": network.num_features, "parameters": trainable(network)})
