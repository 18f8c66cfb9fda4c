"""A training of this chapter as a recipe, and the record of how it went (purity, ranks, pseudo-labels).

The trained network is kept in the engine's cache; evaluations are recipes of their own, with the same fields and some
more, and take it from there. So rows that share a training train once.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from effbook.errors import EffbookError
from effbook.runs.recipe import Context, Cost, Recipe, Result, Shared, register_recipe

Share = Annotated[float, Field(ge=0, le=1)]
Moment = Literal["early", "middle", "end"]

SELF = ("byol", "msf", "cmsf-self")  # without labels
CONTRASTIVE = ("supcon", "protonw")
MOMENTS = {"early": 0.25, "middle": 0.5, "end": 1.0}  # of the training
KIND = "cmsf-trained"


@dataclass(frozen=True, kw_only=True)
class Training(Recipe):
    """All that determines a training; the defaults are the dissertation's CMSF_self on ImageNet-1k.

    `method` "none" trains nothing: the network as it was drawn, or with `encoder` "pixels" the raw image. `labels` says
    which ones the method sees, `noise` what share of them is changed at random and `labelled` what share is there at
    all. `features_of` names a packaged network whose features of the images are computed once, `views` of them; the
    encoder is then a small MLP, and the record says so by this field. `crops` counts the smaller crops beside the
    online network's own view. `k` None is top-all. `k_prime` None makes it equal to k.
    """

    system: ClassVar[str] = "cmsf"

    dataset: str = "imagenet"
    train_images: PositiveInt | None = None  # None: all
    image_px: PositiveInt = 224
    method: Literal[
        "none", "byol", "msf", "cmsf-self", "cmsf-sup", "cmsf-semi", "xent", "supcon", "protonw", "paws"
    ] = "cmsf-self"
    labels: Literal["fine", "coarse"] = "fine"
    noise: Share = 0.0
    labelled: Share = 1.0
    encoder: str = "resnet50"
    features_of: str = ""
    k: PositiveInt | None = 5
    k_prime: PositiveInt | None = None
    bank: PositiveInt = 128_000
    target_in_set: bool = True
    third_view: bool = False
    augmentation: Literal["weak-strong", "strong", "standard"] = "weak-strong"
    crops: NonNegativeInt = 0
    crop_px: PositiveInt = 96
    crop_scale: tuple[PositiveFloat, PositiveFloat] = (0.05, 0.14)  # share of the image's area, as SwAV has it
    views: PositiveInt = 4  # of each image, where `features_of` names a network
    epochs: PositiveInt = 200
    batch_size: PositiveInt = 256
    learning_rate: PositiveFloat = 0.05
    schedule: Literal["cosine", "steps"] = "cosine"
    warmup_epochs: NonNegativeInt = 0
    weight_decay: NonNegativeFloat = 1e-4
    momentum: Share = 0.99  # m of the target
    precision: Literal["float32", "bfloat16"] = "float32"
    # semi-supervised
    threshold: Share = 0.85
    classifier: Literal["none", "knn", "linear", "mlp2", "mlp3"] = "mlp2"  # none: labelled queries alone have labels
    caching: Literal["online", "offline"] = "online"
    support: PositiveInt = 400  # of PAWS

    def validate(self) -> None:
        if self.method in ("cmsf-self", "msf", "cmsf-semi") and self.k is None:
            raise EffbookError(f"{self.method} has no top-all", "give k")
        if self.bank % self.batch_size and self.method not in ("none", "xent", "paws"):
            raise EffbookError(
                f"a bank of {self.bank} is no multiple of the batch of {self.batch_size}",
                f"choose one such as {max(1, round(self.bank / self.batch_size)) * self.batch_size}",
            )
        if self.k is not None and self.k > self.bank:
            raise EffbookError(f"a bank of {self.bank} is smaller than k = {self.k}", "choose a larger bank")
        if self.k_prime is not None and (self.k is None or self.k_prime < self.k):
            raise EffbookError(f"k' = {self.k_prime} is smaller than k = {self.k}", "choose k' of at least k")

    def datasets(self) -> tuple[str, ...]:
        return (self.dataset, self.features_of) if self.features_of else (self.dataset,)

    def needs(self) -> tuple[str, ...]:
        return ("cuda",) if self.encoder.startswith("resnet") and self.dataset not in ("toy-shapes",) else ()

    def training(self) -> "TrainRecipe":
        """The training alone, whatever is evaluated."""
        return TrainRecipe(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Training)})

    def parts(self) -> dict[str, object]:
        """What the trained network depends on."""
        own = self.training()
        return {"fields": {k: v for k, v in own.fields.items() if k != "moment"}, "data": own.digests}

    def trained(self, context: Context) -> Path:
        """The folder of the trained encoder and its history; trained now if it is not kept."""

        def make(folder: Path) -> None:
            from effbook.experiments.cmsf.learning import learn

            learn(self.training(), context, folder)

        return context.cached(KIND, self.parts(), self.training(), make)

    def training_seconds(self) -> float:
        """An estimate for `effbook plan`: of a CPU's two cores at small scale, of one GPU at ImageNet's."""
        images = {"imagenet": 1_281_167, "imagenet100": 126_689}.get(self.dataset, 50_000)
        seen = min(self.train_images or images, images) * self.epochs * (self.method != "none")
        if self.features_of:
            return 5 + seen / 12_000
        passes = 1.33 + self.crops * 0.4 + 0.33 * self.third_view
        rate = {"resnet18": 1400.0, "resnet50": 500.0, "resnet101": 300.0}.get(self.encoder, 900.0)
        return 5 + seen * passes / rate

    def cost(self) -> Cost:
        gpu = 10 << 30 if self.needs() else 0
        return Cost(seconds=self.training_seconds(), gpu_bytes=gpu, disk_bytes=100 << 20 if gpu else 2 << 20)

    def shares(self) -> tuple[Shared, ...]:
        return (Shared(KIND, self.parts(), self.training_seconds()),)

    def modules(self) -> tuple[str, ...]:
        return (type(self).__module__, "effbook.experiments.cmsf.learning")

    def probe(self) -> dict[str, object]:
        if self.needs():
            return {"train_images": 2 * self.batch_size, "epochs": 2}
        images = max(4 * self.batch_size, 256)
        return {"train_images": min(self.train_images or images, images), "epochs": min(self.epochs, 2)}


@register_recipe
@dataclass(frozen=True, kw_only=True)
class TrainRecipe(Training):
    """Train, and tell at a moment of the training what its neighbours and pseudo-labels were like."""

    name: ClassVar[str] = "cmsf-train"
    varying: ClassVar[tuple[str, ...]] = ("step_ms", "days")

    moment: Moment = "end"

    def run(self, context: Context) -> Result:
        history = json.loads((self.trained(context) / "history.json").read_text(encoding="utf-8"))
        epochs = history["epochs"]
        found = epochs[max(1, round(len(epochs) * MOMENTS[self.moment])) - 1] if epochs else {}
        everywhere = [name for name in found if all(name in one for one in epochs)]
        return Result(
            metrics={
                **found,
                "step_ms": history["step_ms"],
                "days": history["days"],
                "trainable": history["trainable"],
            },
            series={name: [one[name] for one in epochs] for name in everywhere} | history["ranks"],
        )
