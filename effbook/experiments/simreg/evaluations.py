"""Evaluations of a distilled student, of its head, or of its teacher: neighbours, distance, a linear layer, transfer.

Each is a recipe with the distillation's fields and some more, and takes the student from the cache.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveInt

from effbook.errors import EffbookError
from effbook.experiments.shared.judging import MeanOfTransfers, summed, transfer
from effbook.experiments.simreg.settings import Distillation
from effbook.runs.recipe import Context, Cost, Recipe, Result, Shared, register_recipe

if TYPE_CHECKING:
    from torch import Tensor, nn


OF_HEAD = ("head-2", "head")


@dataclass(frozen=True, kw_only=True)
class Evaluation(Distillation):
    """A distillation, whose features are judged, and on how many images.

    `layer`: the student's backbone, a layer within it (Table A.17), the second layer of its head, the head's output; or
    "teacher", the first teacher itself, whatever the student.
    """

    test_images: PositiveInt | None = None  # None: all
    layer: Literal[
        "backbone", "conv-1", "resblk-1", "resblk-2", "resblk-3", "resblk-4", "head-2", "head", "teacher"
    ] = "backbone"

    def validate(self) -> None:
        super().validate()
        if self.layer == "head-2" and not self.head.startswith("4L"):
            raise EffbookError(f"the head {self.head!r} has no second layer to look at", "choose a head of four layers")
        if self.layer in OF_HEAD and self.head == "none":
            raise EffbookError("there is no head to look at", "choose a head, or another layer")

    def cost(self) -> Cost:
        own = super().cost()
        return Cost(seconds=own.seconds + 10, gpu_bytes=own.gpu_bytes, disk_bytes=own.disk_bytes)

    def shares(self) -> tuple[Shared, ...]:
        if self.layer == "teacher":
            return tuple(shared for recipe in self.taught().values() for shared in recipe.shares())
        return super().shares()

    def probe(self) -> dict[str, object]:
        return super().probe() | {"test_images": min(self.test_images or 200, 200)}

    def embedder(self, context: Context) -> "nn.Module":
        """What gives the layer's features [B, D] of normalised images."""
        from effbook.experiments.simreg.learning import kept_student, new_teacher

        if self.layer == "teacher":
            return new_teacher(self, self.teachers[0], context).to(context.device)
        network = kept_student(self, context, with_head=self.layer in OF_HEAD)
        return network if self.layer in ("backbone", "head") else self._inside(network)

    def _inside(self, network: "nn.Module") -> "nn.Module":
        from effbook.experiments.simreg.layers import Inside, module_name

        length = None if self.layer == "head-2" else network.num_features
        return Inside(network, module_name(self.layer, self.student), length=length)

    def embedded(self, context: Context) -> "tuple[tuple[Tensor, Tensor, Tensor, Tensor], int, dict[str, int]]":
        """Features and labels of the training images [N, D], [N] and of the test images [T, D], [T], on the CPU.

        Also the number of classes, and as a metric how many files were broken.
        """
        from effbook.experiments.shared.splits import features_of, test_split, train_split

        network, train, test = self.embedder(context), train_split(self), test_split(self)
        found = (*features_of(network, train), *features_of(network, test))
        return found, len(train.classes), summed(train.broken, test.broken)


@register_recipe
@dataclass(frozen=True, kw_only=True)
class NearestRecipe(Evaluation):
    """Nearest neighbours by cosine, 1 and 20 of them (2.2.4)."""

    name: ClassVar[str] = "simreg-nearest"

    def run(self, context: Context) -> Result:
        from effbook.evaluate.neighbours import knn_accuracy

        found, _, broken = self.embedded(context)
        return Result(metrics={f"nn{k}": knn_accuracy(*found, k=k) for k in (1, 20)} | broken)


@register_recipe
@dataclass(frozen=True, kw_only=True)
class LinearRecipe(Evaluation):
    """A linear layer on frozen features (A.2.2.4)."""

    name: ClassVar[str] = "simreg-linear"

    def run(self, context: Context) -> Result:
        from effbook.evaluate.linear import LinearSettings, linear_evaluation

        found, classes, broken = self.embedded(context)
        judged = linear_evaluation(*found, settings=LinearSettings(seed=self.seed), classes=classes)
        return Result(metrics={"top1": judged.top1, "top5": judged.top5} | broken)


@register_recipe
@dataclass(frozen=True, kw_only=True)
class DistanceRecipe(Evaluation):
    """How far a layer is from the teacher's features: 2 - 2 cos, mean over images (Tables 2.7 and 2.8).

    On the test images, and on the training images as they are.
    """

    name: ClassVar[str] = "simreg-distance"

    def validate(self) -> None:
        super().validate()
        if len(self.teachers) > 1:
            raise EffbookError("a layer has no one distance from several teachers", "choose one teacher")

    def run(self, context: Context) -> Result:
        from effbook.experiments.shared.splits import features_of, test_split, train_split
        from effbook.experiments.simreg.learning import new_teacher
        from effbook.simreg.loss import regression_loss

        own, teacher = self.embedder(context), new_teacher(self, self.teachers[0], context).to(context.device)
        found, broken = {}, []
        for name, images in (("mse", test_split(self)), ("mse_train", train_split(self))):
            features, wanted = (features_of(network, images)[0] for network in (own, teacher))
            found[name] = regression_loss(features, wanted).item() if features.shape == wanted.shape else None
            broken.append(images.broken)
        unlike = [name for name, value in found.items() if value is None]
        notes = dict.fromkeys(unlike, "layer and teacher have features of other lengths")
        return Result(metrics=found | summed(*broken), notes=notes)


@register_recipe
@dataclass(frozen=True, kw_only=True)
class TransferRecipe(Evaluation):
    """Logistic regression on frozen features of another data set, its settings from a grid (A.2.2.4)."""

    name: ClassVar[str] = "simreg-transfer"

    target: str = "food101"
    grid: tuple[PositiveInt, PositiveInt] = (10, 9)  # learning rates in 1e-3 ... 1, weight decays in 1e-10 ... 1e-2
    iterations: PositiveInt = 100
    target_images: PositiveInt | None = None  # of the target's training set; None: all

    def datasets(self) -> tuple[str, ...]:
        return (*super().datasets(), self.target)

    def probe(self) -> dict[str, object]:
        return super().probe() | {"grid": (1, 2), "target_images": min(self.target_images or 300, 300)}

    def run(self, context: Context) -> Result:
        from effbook.evaluate.logistic import LogisticSettings
        from effbook.evaluate.transfer import TransferSettings
        from effbook.experiments.shared.splits import features_of

        settings = TransferSettings(
            grid=self.grid,
            lr=(1e-3, 1.0),
            weight_decay=(1e-10, 1e-2),
            base=LogisticSettings(iterations=self.iterations),
            seed=self.seed,
        )
        metrics = transfer(
            partial(features_of, self.embedder(context)),
            self.target,
            size_px=self.image_px,
            target_images=self.target_images,
            test_images=self.test_images,
            settings=settings,
        )
        return Result(metrics=metrics)


@register_recipe
@dataclass(frozen=True, kw_only=True)
class TransferMeanRecipe(MeanOfTransfers, Evaluation):
    """The mean over several data sets, from their records."""

    name: ClassVar[str] = "simreg-transfer-mean"
    single: ClassVar[type[Recipe]] = TransferRecipe

    grid: tuple[PositiveInt, PositiveInt] = (10, 9)
    iterations: PositiveInt = 100
