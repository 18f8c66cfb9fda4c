"""What training a ResNet-50 costs, by Eq. A.1 (Table A.11): nothing is trained."""

from dataclasses import dataclass
from typing import ClassVar

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from effbook.errors import EffbookError
from effbook.experiments.shared.arithmetic import register_arithmetic
from effbook.runs.recipe import Context, Recipe, Result

FORWARD_FLOPS = 3.9e9  # one 224 x 224 image through the backbone
BACKWARD = 2  # the FLOPs of a backward pass, in forward passes


@register_arithmetic
@dataclass(frozen=True, kw_only=True)
class FlopsRecipe(Recipe):
    """Passes and FLOPs of a whole training.

    A crop is one augmented view of an image; one of side K counts (K / 224)^2. `mini_batch` is the number of crops that
    pass forward and backward in one step, `passes` that of the whole training.
    """

    system: ClassVar[str] = "cmsf"
    name: ClassVar[str] = "cmsf-flops"

    unlabeled_forward: NonNegativeFloat  # crops an image
    unlabeled_backward: NonNegativeFloat
    unlabeled_batch: PositiveInt
    labeled_forward: NonNegativeFloat = 0.0
    labeled_backward: NonNegativeFloat = 0.0
    labeled_batch: NonNegativeInt = 0
    iterations: PositiveInt  # an epoch
    epochs: PositiveInt = 1

    def validate(self) -> None:
        for kind in ("unlabeled", "labeled"):
            forward, backward = getattr(self, f"{kind}_forward"), getattr(self, f"{kind}_backward")
            if not 0 <= backward <= forward:
                raise EffbookError(
                    f"of {forward} crops an image that pass forward, {backward} cannot pass backward",
                    f"choose {kind}_backward from 0 to {kind}_forward",
                )
            if (forward > 0) != (getattr(self, f"{kind}_batch") > 0):
                raise EffbookError(
                    f"{kind}_forward is {forward} and {kind}_batch is {getattr(self, f'{kind}_batch')}",
                    "choose both above 0, or leave both out",
                )

    def run(self, context: Context) -> Result:
        forward = self.unlabeled_forward * self.unlabeled_batch + self.labeled_forward * self.labeled_batch
        backward = self.unlabeled_backward * self.unlabeled_batch + self.labeled_backward * self.labeled_batch
        steps = self.iterations * self.epochs
        return Result(
            metrics={
                "mini_batch": forward + backward,
                "passes": (forward + backward) * steps,
                "flops": (forward + BACKWARD * backward) * steps * FORWARD_FLOPS,
            }
        )
