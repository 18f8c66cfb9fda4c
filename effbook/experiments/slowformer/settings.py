"""All that determines a victim, a patch against it and how both are judged: the fields that recipes share.

The trained victim and the trained patch are kept in the engine's cache. What judges them is a recipe of its own with
the same fields and some more: rows that share a victim or a patch train it once.
"""

import dataclasses
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from effbook.errors import EffbookError
from effbook.runs.recipe import Cost, Recipe, Shared, make

if TYPE_CHECKING:
    from effbook.slowformer.config import AttackConfig

VICTIM, PATCH, CLEAN, DEFENDED = "slowformer-victim", "slowformer-patch", "slowformer-clean", "slowformer-defended"
TOKEN_PX = {"deit-ti": 16, "deit-s": 16, "deit-b": 16, "vit-s14": 14, "toy": 7}  # the side of a token
OFFICIAL_AVIT = {"deit-ti": "avit-ti", "deit-s": "avit-s"}  # manifests of the authors' weights
IMAGES = {"imagenet": 1_281_167, "toy-shapes": 500}  # of a training set; else 50,000
TESTED = {"imagenet": 50_000, "toy-shapes": 200}  # of a test set; else 10,000
# Images a second forward, for estimates: at 224 px on one GPU, of the packaged ViT at 84 px on one core.
RATES = {"deit-ti": 4000.0, "deit-s": 2000.0, "deit-b": 700.0, "vit-s14": 115.0, "toy": 10_000.0}


@dataclass(frozen=True, kw_only=True)
class Victim(Recipe):
    """All that determines a victim; the defaults are A-ViT on ViT-Tiny, ImageNet, with its authors' weights.

    `victim` "dense" is the plain ViT. `weights` "official": A-ViT's by its authors; ATS adds no parameter and, as the
    dense ViT, takes DeiT's. "trained": from a pretrained ViT by the fields that follow; a classifier is started by
    ridge regression on `head_images` (0: it is zero), and fitted anew after the training on `last_head_images`,
    unless it came with the weights. `extreme` asks for a very low depth, as that of A-ViT on CIFAR-10 (Table 4.2): each
    profile has its own `target_depth` for it. `pool` is what the classifier sees, the class token or the mean of the
    patches. The others are told by `AViTConfig`, `AtsConfig`, `AdaViTConfig` and `TrainConfig`.
    """

    system: ClassVar[str] = "slowformer"

    victim: Literal["avit", "ats", "adavit", "dense"] = "avit"
    weights: Literal["official", "trained"] = "official"
    architecture: Literal["deit-ti", "deit-s", "deit-b", "vit-s14", "toy"] = "deit-ti"
    dataset: str = "imagenet"
    train_images: PositiveInt | None = None  # None: all; the patch is trained on them, too
    image_px: PositiveInt = 224
    extreme: bool = False
    gate: Literal["channel", "linear"] = "channel"
    readout: Literal["weighted", "last"] = "weighted"
    first_shift: float = -4.0
    patch_target: Annotated[float, Field(ge=0, le=1)] = 0.7
    head_target: Annotated[float, Field(ge=0, le=1)] = 0.7
    block_target: Annotated[float, Field(ge=0, le=1)] = 0.7
    decision_start: float = 3.0
    tau: PositiveFloat = 5.0
    patch_threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    samples: Annotated[int, Field(ge=2)] | None = None
    pool: Literal["token", "avg"] = "token"
    trained: Literal["all", "head", "gates"] = "all"
    train_steps: NonNegativeInt = 10_000
    train_batch: PositiveInt = 128
    vit_rate: NonNegativeFloat = 4e-5
    gate_rate: NonNegativeFloat = 5e-3
    shift_rate: NonNegativeFloat = 3e-2
    target_depth: PositiveFloat | None = None
    two_sided: bool = False
    budget_weight: NonNegativeFloat = 10.0
    ramp: Annotated[float, Field(ge=0, le=1)] = 0.5
    train_noise: bool = True
    usage_weight: NonNegativeFloat = 1.0
    erasing: Annotated[float, Field(ge=0, le=1)] = 0.25
    head_images: NonNegativeInt = 10_000
    last_head_images: NonNegativeInt = 0
    ridge: PositiveFloat = 1.0

    def validate(self) -> None:
        if self.weights == "official" and self.architecture not in OFFICIAL_AVIT and self.victim == "avit":
            raise EffbookError(
                f"the authors of A-ViT give no weights for {self.architecture}", 'choose deit-ti, deit-s, or "trained"'
            )
        if self.weights == "official" and (self.victim == "adavit" or self.dataset != "imagenet"):
            raise EffbookError(
                f"no official weights of {self.victim} on {self.dataset} can be read here", 'choose weights "trained"'
            )
        if self.image_px % TOKEN_PX[self.architecture]:
            raise EffbookError(
                f"images of {self.image_px} px are not whole tokens of {TOKEN_PX[self.architecture]} px",
                f"choose a multiple of {TOKEN_PX[self.architecture]}",
            )

    def source(self) -> str | None:
        """The manifest of the weights that are taken; None where the body is random."""
        if self.architecture == "toy":
            return None
        if self.weights == "official" and self.victim == "avit":
            return OFFICIAL_AVIT[self.architecture]
        return self.architecture

    def own_head(self) -> bool:
        """Whether the classifier comes with the weights."""
        return self.architecture.startswith("deit") and self.dataset == "imagenet"

    def datasets(self) -> tuple[str, ...]:
        source = self.source()
        return (self.dataset,) if source is None else (self.dataset, source)

    def needs(self) -> tuple[str, ...]:
        if self.architecture == "toy" or (self.architecture == "vit-s14" and self.image_px <= 112):
            return ()
        return ("cuda",)

    def training(self) -> Recipe:
        """The victim's training alone, whatever is done with it: its code is the code of the kept victim."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(Victim)}
        return make("slowformer-victim", **own)

    def parts(self) -> dict[str, object]:
        """What the kept victim depends on."""
        own = self.training()
        return {"fields": own.fields, "data": own.digests}

    def forward_s(self) -> float:
        """An estimate of the seconds that an image takes forward."""
        native_px = 84 if self.architecture == "vit-s14" and not self.needs() else 224
        area = 1.0 if self.architecture == "toy" else (self.image_px / native_px) ** 2
        return area / (RATES[self.architecture] * (10 if self.architecture == "vit-s14" and self.needs() else 1))

    def training_s(self) -> float:
        """An estimate of the seconds that the victim's training takes; forward and backward are four forward."""
        if self.weights == "official":
            return 0.0
        return (
            5 + (4 * self.train_steps * self.train_batch + self.head_images + self.last_head_images) * self.forward_s()
        )

    def cost(self) -> Cost:
        gpu = 12 << 30 if self.needs() else 0
        return Cost(seconds=2 + Victim.training_s(self), gpu_bytes=gpu, disk_bytes=100 << 20)

    def shares(self) -> tuple[Shared, ...]:
        return (Shared(VICTIM, self.parts(), self.training_s()),) if self.weights == "trained" else ()

    def probe(self) -> dict[str, object]:
        few = {"train_images": min(self.train_images or 64, 64), "train_steps": min(self.train_steps, 2)}
        heads = {name: min(getattr(self, name), 64) for name in ("head_images", "last_head_images")}
        return few | heads | {"train_batch": min(self.train_batch, 8)}


@dataclass(frozen=True, kw_only=True)
class Attack(Victim):
    """A victim and all that determines the patch against it; the defaults are the dissertation's for A-ViT.

    `attack`: "slowformer", "random" (no training), "tap" (one patch for each of `targets` classes), "ntap",
    "desparsify", or "perturbation" of all pixels by at most `epsilon` levels of 255. `place` 0 is the top left corner,
    1, 2, ... places drawn from the seed. `task` "preserve" and "destroy" add `task_weight` times plus or minus the
    task's loss. `loss`: "text" or "released" where these differ, "surrogate" the expected share of the compute,
    "scores" ATS's scores to be uniform; "default" is what the profile takes for this victim, and without a profile the
    text's. `steps` None: `epochs` passes. `restart` numbers the starts from the same seed. `augmented`: batches are
    random crops and flips, as in DeiT's training, and the patch is pasted after.
    """

    attack: Literal["slowformer", "random", "tap", "ntap", "desparsify", "perturbation"] = "slowformer"
    patch_px: PositiveInt = 64
    place: NonNegativeInt = 0
    task: Literal["agnostic", "preserve", "destroy"] = "agnostic"
    task_weight: NonNegativeFloat = 1.0
    loss: Literal["default", "text", "released", "surrogate", "scores"] = "default"
    start: Literal["uniform", "released", "zero"] = "uniform"
    steps: PositiveInt | None = None
    epochs: PositiveInt = 1
    attack_batch: PositiveInt = 512
    learning_rate: PositiveFloat = 0.2
    noise: bool = False
    augmented: bool = True
    targets: PositiveInt = 10
    epsilon: Annotated[int, Field(ge=0, le=255)] = 0
    restart: NonNegativeInt = 0

    def validate(self) -> None:
        super().validate()
        if self.patch_px > self.image_px:
            raise EffbookError(
                f"a patch of {self.patch_px} pixels is larger than images of {self.image_px}", "make the patch smaller"
            )
        if (self.attack == "perturbation") != bool(self.epsilon):
            raise EffbookError(
                f"{self.attack} and epsilon = {self.epsilon} do not go together",
                "give a perturbation, and only that, a bound of at least 1",
            )
        if self.attack == "perturbation" and self.start == "released":
            raise EffbookError("a perturbation has no released start", 'choose "uniform" or "zero"')
        if self.victim == "dense":
            raise EffbookError("the dense ViT costs the same for any image", "attack avit, ats or adavit")
        if self.loss == "scores" and self.victim != "ats":
            raise EffbookError(f"{self.victim} has no scores to sample by", 'choose another loss, or the victim "ats"')
        if self.noise and self.victim != "adavit":
            raise EffbookError(f"{self.victim} decides without noise", "attack it without `noise`")
        if self.task != "agnostic" and self.attack not in ("slowformer", "perturbation"):
            raise EffbookError(f"{self.attack} is told by its own loss alone", 'leave `task` at "agnostic"')

    def corner(self) -> tuple[int, int]:
        """Where the patch goes, from the top and from the left."""
        if not self.place:
            return 0, 0
        draw = random.Random(f"place {self.place} of seed {self.seed}")
        room = self.image_px - self.patch_px
        return draw.randint(0, room), draw.randint(0, room)

    def patch_recipe(self) -> "Attack":
        """The patch's training alone, whatever it is judged on: its code is the code of the kept patch."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(Attack)}
        return make("slowformer-patch", **own)

    def patch_parts(self) -> dict[str, object]:
        """What the kept patch depends on."""
        own = self.patch_recipe()
        return {"fields": own.fields, "data": own.digests}

    def step_count(self) -> int:
        """How many steps a patch is trained."""
        known = IMAGES.get(self.dataset, 50_000)
        return self.steps or max(1, self.epochs * (min(self.train_images or known, known) // self.attack_batch))

    def config(self, **changes: object) -> "AttackConfig":
        """The library's settings of this attack. Each restart has a seed of its own."""
        from effbook.slowformer.config import AttackConfig

        top_px, left_px = self.corner()
        given = {
            "patch_px": self.patch_px,
            "top_px": top_px,
            "left_px": left_px,
            "steps": self.step_count(),
            "batch": self.attack_batch,
            "learning_rate": self.learning_rate,
            "start": self.start,
            "noise": self.noise,
            "seed": self.seed + (self.restart << 32),
        }
        return AttackConfig(**given | changes)

    def patch_s(self) -> float:
        """An estimate of the seconds that the patch's training takes."""
        if self.attack == "random":
            return 0.0
        many = self.targets if self.attack == "tap" else 1
        return 1 + 4 * many * self.step_count() * self.attack_batch * self.forward_s()

    def cost(self) -> Cost:
        own = super().cost()
        return dataclasses.replace(own, seconds=own.seconds + self.patch_s(), disk_bytes=1 << 20)

    def shares(self) -> tuple[Shared, ...]:
        return (*super().shares(), Shared(PATCH, self.patch_parts(), self.patch_s()))

    def probe(self) -> dict[str, object]:
        small = {"steps": min(self.step_count(), 2), "attack_batch": min(self.attack_batch, 4)}
        return super().probe() | small | {"targets": min(self.targets, 2)}


@dataclass(frozen=True, kw_only=True)
class Judged(Recipe):
    """On how many test images a victim or a patch is judged, the same for all seeds; mixed into the two above."""

    test_images: PositiveInt | None = None  # None: all

    def cost(self) -> Cost:
        own = super().cost()
        return dataclasses.replace(own, seconds=own.seconds + self.judging_s())

    def judging_s(self) -> float:
        """An estimate of the seconds that judging takes: without the attack and with it, or with each of many."""
        known = TESTED.get(self.dataset, 10_000)
        many = 1 + (self.targets if getattr(self, "attack", "") == "tap" else 1)
        return many * min(self.test_images or known, known) * self.forward_s()

    def clean_recipe(self) -> Recipe:
        """What the victim does on clean images, whatever attacks it: its code is the code of what is kept of that."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(Victim)}
        return make("slowformer-clean", **own, test_images=self.test_images)

    def clean_parts(self) -> dict[str, object]:
        """What the victim's behaviour on the clean test images depends on."""
        own = self.clean_recipe()
        return {"fields": own.fields, "data": own.digests}

    def probe(self) -> dict[str, object]:
        return super().probe() | {"test_images": min(self.test_images or 24, 24)}
