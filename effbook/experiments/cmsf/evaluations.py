"""Evaluations of a trained encoder: neighbours, a linear layer, fine-tuning, transfer.

Each is a recipe with the training's fields and some more, and takes the training from the cache.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, PositiveInt

from effbook.experiments.cmsf.settings import CLASSIFIER, Training, lists_of
from effbook.experiments.shared.judging import MeanOfTransfers, summed, transfer
from effbook.runs.recipe import Context, Cost, Recipe, Result, register_recipe

if TYPE_CHECKING:
    from torch import Tensor

    from effbook.experiments.shared.splits import Split


@dataclass(frozen=True, kw_only=True)
class Evaluation(Training):
    """A training, and on how many images it is tested."""

    test_images: PositiveInt | None = None  # None: all

    def cost(self) -> Cost:
        own = super().cost()
        return Cost(seconds=own.seconds + 20, gpu_bytes=own.gpu_bytes, disk_bytes=own.disk_bytes)

    def probe(self) -> dict[str, object]:
        return super().probe() | {"test_images": min(self.test_images or 200, 200)}

    def embedded(self, context: Context) -> "tuple[tuple[Tensor, Tensor, Tensor, Tensor], Split, dict[str, int]]":
        """Features and labels of the training images [N, D], [N] and of the test images [T, D], [T], on the CPU.

        Also the training images, and as a metric how many files were broken.
        """
        from effbook.experiments.cmsf.inputs import embed
        from effbook.experiments.shared.splits import test_split, train_split

        encoder = self.encoder_of(context)
        train, test = train_split(self), test_split(self)
        found = (*embed(self, context, encoder, train), *embed(self, context, encoder, test))
        return found, train, summed(train.broken, test.broken)

    def encoder_of(self, context: Context):
        """The trained encoder, on the context's device."""
        return self.training().network(context).to(context.device)


@register_recipe
@dataclass(frozen=True, kw_only=True)
class NearestRecipe(Evaluation):
    """Nearest neighbours by cosine, 1 and 20 of them (2.1.4)."""

    name: ClassVar[str] = "cmsf-nearest"

    def run(self, context: Context) -> Result:
        from effbook.evaluate.neighbours import knn_accuracy

        found, _, broken = self.embedded(context)
        return Result(metrics={f"nn{k}": knn_accuracy(*found, k=k) for k in (1, 20)} | broken)


@register_recipe
@dataclass(frozen=True, kw_only=True)
class LinearRecipe(Evaluation):
    """A linear layer on frozen features (2.1.4), with the true labels of the training images or of a share of them.

    `share` below 1 is the evaluation with few labels (Table 2.4). With `own_classifier` Xent is judged by the layer
    that it trained itself, on the labels that it was shown (2.1.4.2); where these are coarse it has none that fits.
    """

    name: ClassVar[str] = "cmsf-linear"

    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    own_classifier: bool = True

    def datasets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*super().datasets(), *lists_of(self.dataset, self.share))))

    def run(self, context: Context) -> Result:
        from effbook.evaluate.linear import LinearSettings, linear_evaluation
        from effbook.experiments.cmsf.few import shown

        if self.own_classifier and self.method == "xent" and self.labels == "fine" and self.share == 1:
            return self._own(context)
        (x, y, *tested), train, broken = self.embedded(context)
        if self.share < 1:
            chosen = shown(train, self.share, seed=self.seed)[~train.marked]  # features are those of sound files
            x, y = x[chosen], y[chosen]
        settings = LinearSettings(seed=self.seed)
        found = linear_evaluation(x, y, *tested, settings=settings, classes=len(train.classes))
        return Result(metrics={"top1": found.top1, "top5": found.top5} | broken)

    def _own(self, context: Context) -> Result:
        from safetensors.torch import load_file
        from torch.nn.functional import linear

        from effbook.evaluate.measures import top_k_accuracy
        from effbook.experiments.cmsf.inputs import embed
        from effbook.experiments.cmsf.learning import trained
        from effbook.experiments.shared.splits import test_split

        kept = load_file(trained(self, context) / CLASSIFIER)
        test = test_split(self)
        x, y = embed(self, context, self.encoder_of(context), test)
        logits = linear(x, kept["weight"], kept["bias"])
        found = {f"top{k}": top_k_accuracy(logits, y, k=min(k, logits.shape[1])) for k in (1, 5)}
        return Result(metrics=found | test.broken)


@register_recipe
@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe(Evaluation):
    """Fine-tune the whole network with few labels, in one round or in two with pseudo-labels between (A.1.5.3).

    Of a network on a packaged one's features only itself is tuned.
    """

    name: ClassVar[str] = "cmsf-finetune"

    share: Annotated[float, Field(gt=0, le=1)] = 0.1
    rounds: Annotated[int, Field(ge=1, le=2)] = 2
    tuning_epochs: PositiveInt = 20
    tuning_batch: Annotated[int, Field(ge=2)] = 256

    def datasets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*super().datasets(), *lists_of(self.dataset, self.share))))

    def probe(self) -> dict[str, object]:
        return super().probe() | {"tuning_epochs": min(self.tuning_epochs, 2)}

    def run(self, context: Context) -> Result:
        from effbook.cmsf.pseudo import FinetuneSettings, finetune
        from effbook.evaluate.vision import accuracy
        from effbook.experiments.cmsf.few import shown
        from effbook.experiments.cmsf.inputs import (
            embed,
            feature_views,
            one_of,
            plain_inputs,
        )
        from effbook.experiments.shared.splits import seen, test_split, train_split
        from effbook.training.augment import weak
        from effbook.training.seeds import generator

        encoder, train = self.encoder_of(context), train_split(self)
        given = train.sound(train.labels.where(shown(train, self.share, seed=self.seed), -1))
        drops = (max(1, self.tuning_epochs * 3 // 4),)
        settings = FinetuneSettings(
            rounds=self.rounds, epochs=self.tuning_epochs, drop_epochs=drops, batch=self.tuning_batch
        )
        view, draw = weak(self.view_px or self.image_px), generator(self.seed, 10)
        plain, views = plain_inputs(self, context, train), feature_views(self, context) if self.features_of else None

        def training(index: "Tensor") -> "Tensor":
            made = seen(train.at(index), draw, view=view) if views is None else one_of(views[index], draw)
            return made.to(context.device)

        network, labels = finetune(
            encoder,
            given,
            dim=encoder.num_features,
            classes=len(train.classes),
            settings=settings,
            generator=draw,
            training=training,
            plain=lambda index: plain(index).to(context.device),
        )
        test = test_split(self)
        logits, y_test = embed(self, context, network, test)
        guessed = (labels >= 0) & (given < 0) & ~train.marked
        right = 100.0 * (labels == train.labels)[guessed].double().mean().item() if guessed.any() else None
        return Result(
            metrics={
                "top1": accuracy(logits, y_test),
                "guessed_share": 100.0 * guessed.double().mean().item(),
                "guessed_right": right,
                **summed(train.broken, test.broken),
            },
            notes={} if guessed.any() else {"guessed_right": "no pseudo-label was confident enough"},
        )


@register_recipe
@dataclass(frozen=True, kw_only=True)
class TransferRecipe(Evaluation):
    """Logistic regression on frozen features of another data set, its settings found on a validation set (A.1.5.1)."""

    name: ClassVar[str] = "cmsf-transfer"

    target: str = "food101"
    trials: PositiveInt = 200
    iterations: tuple[PositiveInt, PositiveInt] = (1, 1000)  # the range that is searched
    target_images: PositiveInt | None = None  # of the target's training set; None: all

    def datasets(self) -> tuple[str, ...]:
        return (*super().datasets(), self.target)

    def probe(self) -> dict[str, object]:
        return super().probe() | {"trials": min(self.trials, 2), "target_images": min(self.target_images or 300, 300)}

    def run(self, context: Context) -> Result:
        from effbook.evaluate.transfer import TransferSettings
        from effbook.experiments.cmsf.inputs import embed

        metrics = transfer(
            partial(embed, self, context, self.encoder_of(context)),
            self.target,
            size_px=self.image_px,
            target_images=self.target_images,
            test_images=self.test_images,
            settings=TransferSettings(trials=self.trials, iterations=self.iterations, seed=self.seed),
        )
        return Result(metrics=metrics)


@register_recipe
@dataclass(frozen=True, kw_only=True)
class TransferMeanRecipe(MeanOfTransfers, Evaluation):
    """The mean over several data sets, from their records ("Mean Trans")."""

    name: ClassVar[str] = "cmsf-transfer-mean"
    single: ClassVar[type[Recipe]] = TransferRecipe

    trials: PositiveInt = 200
    iterations: tuple[PositiveInt, PositiveInt] = (1, 1000)  # the range that is searched
