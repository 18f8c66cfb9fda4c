"""What the last stage of the cross-modal table has learned (A.1.2, Table A.4)."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from pydantic import PositiveInt

from effbook.experiments.cmsf.stages import Stages
from effbook.runs.recipe import Context, Cost, Result, register_recipe


@register_recipe
@dataclass(frozen=True, kw_only=True)
class ModalRecipe(Stages):
    """R@1, test clips retrieving training clips, and a linear layer on the frozen features of the last stage (A.4).

    Features of a video are the mean over `clips` of its clips. The layer is trained as elsewhere in this chapter.
    """

    name: ClassVar[str] = "cmsf-modal"

    test_images: PositiveInt | None = None  # or clips; None: all
    clips: PositiveInt = 10

    def cost(self) -> Cost:
        own = super().cost()
        return dataclasses.replace(own, seconds=own.seconds + (3_600 if self.encoder == "s3d" else 15))

    def probe(self) -> dict[str, object]:
        return super().probe() | {"test_images": min(self.test_images or 200, 200)}

    def run(self, context: Context) -> Result:
        from effbook.evaluate.linear import LinearSettings, linear_evaluation
        from effbook.evaluate.neighbours import retrieval
        from effbook.experiments.cmsf.modal_inputs import read_part
        from effbook.experiments.cmsf.modal_training import kept_network, trained

        modality = self.stages[-1].split("-")[1]
        encoder = kept_network(self, trained(self, context)).encoder.to(context.device)
        train = read_part(self, context, "train", wanted=self.train_images, seed=self.seed)
        test = read_part(self, context, "test", wanted=self.test_images, seed=0)
        found = (*train.features(encoder, modality, self.clips), *test.features(encoder, modality, self.clips))
        settings = LinearSettings(seed=self.seed)
        layer = linear_evaluation(*found, settings=settings, classes=len(train.classes))
        broken = {name: value + test.broken[name] for name, value in train.broken.items()}
        return Result(metrics={"recall": retrieval(*found, k=1), "linear": layer.top1} | broken)
