"""All that determines a training of this chapter: the fields that its recipes share, and what they may be.

The trained network is kept in the engine's cache. Evaluations are recipes of their own, with the same fields and some
more, and take it from there: rows that share a training train once.
"""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from effbook.errors import EffbookError
from effbook.runs.recipe import Cost, Recipe, Shared, make
from effbook.training.settings import check_bank

Share = Annotated[float, Field(ge=0, le=1)]

SELF = ("byol", "msf", "cmsf-self")  # without labels
BANKLESS = ("none", "xent", "paws")
ALL_LABELS = ("xent", "supcon", "protonw")  # methods that know no image without a label
TRAINED, FEATURES = "cmsf-trained", "cmsf-features"  # kinds of kept results
CLASSIFIER = "classifier.safetensors"  # beside a network that Xent trained
LISTS = "imagenet-lists"  # SimCLR's, of the images that keep their label, by their share
PUBLISHED = {0.01: "1percent.txt", 0.1: "10percent.txt"}
IMAGES = {"imagenet": 1_281_167, "imagenet100": 126_689, "toy-shapes": 1_000}  # of a training set; else 50,000


def lists_of(dataset: str, share: float) -> tuple[str, ...]:
    """The published lists, by their data set's name, of the images that keep their label; none where they are drawn."""
    return (LISTS,) if dataset == "imagenet" and share in PUBLISHED else ()


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
    view_px: PositiveInt | None = None  # of what the method sees; None: as large as the images that are evaluated
    method: Literal[
        "none", "byol", "msf", "cmsf-self", "cmsf-sup", "cmsf-semi", "xent", "supcon", "protonw", "paws"
    ] = "cmsf-self"
    labels: Literal["fine", "coarse"] = "fine"
    noise: Share = 0.0
    labelled: Annotated[float, Field(gt=0, le=1)] = 1.0
    encoder: Literal["resnet18", "resnet50", "resnet101", "small-half", "small", "small-deep", "mlp", "pixels"] = (
        "resnet50"
    )
    features_of: Literal["", "mobilenet-v2"] = ""
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
    support: Annotated[int, Field(ge=2)] = 400  # of PAWS

    def validate(self) -> None:
        if self.method in ("cmsf-self", "msf", "cmsf-semi") and self.k is None:
            raise EffbookError(f"{self.method} has no top-all", "give k")
        if self.method not in BANKLESS:
            check_bank(self.bank, batch=self.batch_size)
        if self.k_prime is not None and (self.k is None or self.k_prime < self.k):
            raise EffbookError(f"k' = {self.k_prime} is smaller than k = {self.k}", "choose k' of at least k")
        if self.method not in BANKLESS and max(self.k or 1, self.k_prime or 1) > self.bank:
            raise EffbookError(
                f"a bank of {self.bank} is smaller than {max(self.k or 1, self.k_prime or 1)} neighbours",
                "choose a larger bank",
            )
        if self.labelled < 1 and self.method in ALL_LABELS:
            raise EffbookError(f"{self.method} needs the label of every image", "choose labelled = 1")
        if (self.encoder == "mlp") != bool(self.features_of):
            raise EffbookError("an MLP and features_of go together", "give both or neither")
        if self.encoder == "pixels" and self.method != "none":
            raise EffbookError("raw pixels cannot be trained", 'choose the method "none", or another encoder')

    def datasets(self) -> tuple[str, ...]:
        own = (self.dataset, self.features_of) if self.features_of else (self.dataset,)
        return (*own, *lists_of(self.dataset, self.labelled))

    def needs(self) -> tuple[str, ...]:
        return ("cuda",) if self.encoder.startswith("resnet") and self.dataset != "toy-shapes" else ()

    def training(self) -> Recipe:
        """The training alone, whatever is evaluated: its code is the code of the kept network."""
        return make("cmsf-train", **{field.name: getattr(self, field.name) for field in dataclasses.fields(Training)})

    def parts(self) -> dict[str, object]:
        """What the trained network depends on."""
        own = self.training()
        return {"fields": {k: v for k, v in own.fields.items() if k != "moment"}, "data": own.digests}

    def view_parts(self) -> dict[str, object]:
        """What the packaged network's features of the views depend on."""
        own = ("dataset", "train_images", "image_px", "features_of", "views", "seed")
        return {name: getattr(self, name) for name in own} | {"data": self.training().digests}

    def cost(self) -> Cost:
        gpu = 10 << 30 if self.needs() else 0
        seconds = sum(one.seconds for one in Training.shares(self))
        return Cost(seconds=seconds, gpu_bytes=gpu, disk_bytes=100 << 20 if gpu else 2 << 20)

    def shares(self) -> tuple[Shared, ...]:
        training = Shared(TRAINED, self.parts(), self.training_seconds())
        if not self.features_of or self.method == "none":
            return (training,)
        return training, Shared(FEATURES, self.view_parts(), self.images() * self.views / 300)

    def images(self) -> int:
        """How many images are trained on, for estimates."""
        known = IMAGES.get(self.dataset, 50_000)
        return min(self.train_images or known, known)

    def training_seconds(self) -> float:
        """An estimate: of a CPU's two cores at small scale, of one GPU at ImageNet's."""
        seen = self.images() * self.epochs * (self.method != "none")
        if self.features_of:
            return 5 + seen / 4_000
        passes = 1.33 + self.crops * 0.4 + 0.33 * self.third_view
        rate = {"resnet18": 1400.0, "resnet50": 500.0, "resnet101": 300.0}.get(self.encoder, 1100.0)
        return 5 + seen * passes / rate

    def probe(self) -> dict[str, object]:
        images = 2 * self.batch_size if self.needs() else max(4 * self.batch_size, 256)
        short = {"train_images": min(self.train_images or images, images), "epochs": min(self.epochs, 2)}
        if self.method == "paws":  # so few images hold enough of a class only if all are labelled
            short |= {"labelled": 1.0, "support": min(self.support, 20)}
        return short
