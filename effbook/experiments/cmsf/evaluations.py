"""Evaluations of a trained encoder: neighbours, a linear layer, few labels. Each takes the training from the cache."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from effbook.experiments.cmsf.training import Training
from effbook.runs.recipe import Context, Cost, Result, register_recipe

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Evaluation(Training):
    """A training and how many images it is evaluated on."""

    test_images: PositiveInt | None = None  # None: all

    def cost(self) -> Cost:
        own = super().cost()
        return Cost(seconds=own.seconds + 20, gpu_bytes=own.gpu_bytes, disk_bytes=own.disk_bytes)

    def probe(self) -> dict[str, object]:
        return super().probe() | {"test_images": min(self.test_images or 200, 200)}

    def modules(self) -> tuple[str, ...]:
        return (__name__, *super().modules())

    def embedded(self, context: Context) -> "tuple[Tensor, Tensor, Tensor, Tensor]":
        """Features and labels of the training images [N, D], [N] and of the test images [T, D], [T], on the CPU."""
        import torch

        from effbook.evaluate.vision import features
        from effbook.experiments.cmsf.inputs import kept_encoder, normalised, plain_features, split, train_split

        folder = self.trained(context)
        train = train_split(self)
        test = split(self, "test", wanted=self.test_images, seed=0)
        encoder = kept_encoder(self, folder, train.pixels).to(torch.device(context.device))
        found = []
        for which, images, wanted in (("train", train, self.train_images), ("test", test, self.test_images)):
            if self.features_of:
                x = features(encoder, plain_features(self, context, which, wanted), 256)
            else:
                x = features(encoder, images.pixels, 256, transform=normalised)
            found += [x, images.labels]
        return tuple(found)


@register_recipe
@dataclass(frozen=True, kw_only=True)
class NearestRecipe(Evaluation):
    """Nearest neighbours by cosine, 1 and 20 of them (2.1.4)."""

    name: ClassVar[str] = "cmsf-nearest"

    def run(self, context: Context) -> Result:
        from effbook.evaluate.neighbours import knn_accuracy

        train_x, train_y, test_x, test_y = self.embedded(context)
        return Result(
            metrics={f"nn{k}": knn_accuracy(train_x, train_y, test_x, test_y, k=k) for k in (1, 20)},
        )


@register_recipe
@dataclass(frozen=True, kw_only=True)
class LinearRecipe(Evaluation):
    """A linear layer on frozen features (2.1.4), with all true labels of the training images or a share of them.

    `share` below 1 is the evaluation with few labels (Table 2.4).
    """

    name: ClassVar[str] = "cmsf-linear"

    share: Annotated[float, Field(gt=0, le=1)] = 1.0

    def run(self, context: Context) -> Result:
        from effbook.evaluate.linear import LinearSettings, linear_evaluation
        from effbook.experiments.cmsf.labels import shown

        train_x, train_y, test_x, test_y = self.embedded(context)
        chosen = shown(train_y, self.share, seed=self.seed)
        found = linear_evaluation(
            train_x[chosen], train_y[chosen], test_x, test_y, settings=LinearSettings(seed=self.seed)
        )
        return Result(metrics={"top1": found.top1, "top5": found.top5})
