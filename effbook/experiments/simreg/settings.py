"""All that determines a distillation of this chapter: the fields that its recipes share, and what they may be.

The trained student is kept in the engine's cache. Evaluations are recipes of their own, with the same fields and some
more, and take it from there: rows that share a distillation train once.
"""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from effbook.errors import EffbookError
from effbook.runs.profiles import scale
from effbook.runs.recipe import Cost, Recipe, Shared, make

if TYPE_CHECKING:
    from effbook.simreg.config import DistillSettings

OFFICIAL = {  # teachers of the dissertation and the manifests of their weights (A.2.2.1)
    "moco-v2": "moco-v2-r50",
    "byol": "byol-r50",
    "swav": "swav-r50",
    "simclr-x4": "simclr-r50x4",
    "supervised": "resnet50",
}
PACKAGED = {"mobilenet-v2": "mobilenet-v2", "vit-s14": "vit-s14"}  # that stand in for large ones
OWN = {"own-msf": "msf", "own-byol": "byol", "own-cmsf": "cmsf-self"}  # the CMSF chapter's networks, and its methods
STUDENT, TEACHER = "simreg-student", "simreg-teacher"  # kinds of kept results
# Images a second, for estimates: of one GPU at ImageNet's size, else of one core.
RATES = {"resnet18": 1400.0, "resnet50": 500.0, "mobilenet-v2": 900.0, "small": 1400.0}
TEACHER_RATES = {"mobilenet-v2": 300.0, "vit-s14": 60.0, "simclr-x4": 150.0}
IMAGES = {"imagenet": 1_281_167, "toy-shapes": 1_000}  # of a training set; else 50,000


@dataclass(frozen=True, kw_only=True)
class Distillation(Recipe):
    """All that determines a distillation; the defaults are the dissertation's MoCo-v2 to ResNet-18 with SimReg-4L-MLP.

    `teachers` are named in `OFFICIAL`, `PACKAGED` or `OWN`; of the latter the seed's own network is taken that the CMSF
    chapter trains under the profile `taught_at`; `taught_as` are the keys of these trainings for seed 0, so that where
    they change, this is another recipe (empty: whatever they are). With `same` both networks get one view, else each
    its own. `cached`: the teachers' features of `views` views of each image are computed once (A.2.2.1), and with
    `same` students see these views. By the schedule "steps" the rate falls to a fifth after epochs 90 and 120 of 130,
    as CompRess has it.
    """

    system: ClassVar[str] = "simreg"

    dataset: str = "imagenet"
    train_images: PositiveInt | None = None  # None: all
    image_px: PositiveInt = 224
    view_px: PositiveInt | None = None  # of what student and teacher see in training; None: image_px
    teachers: tuple[str, ...] = ("moco-v2",)
    taught_at: Literal["", "smoke", "mini", "lab"] = ""
    taught_as: tuple[str, ...] = ()
    student: Literal["resnet18", "resnet50", "mobilenet-v2", "small-half", "small-wide", "small", "small-deep"] = (
        "resnet18"
    )
    objective: Literal["simreg", "regress", "regress-bn", "compress-1q", "compress-2q"] = "simreg"
    head: Literal["none", "linear", "2L", "4L", "2L-equal", "4L-equal"] = "4L"
    queue: PositiveInt = 128_000
    momentum: Annotated[float, Field(ge=0, le=1)] = 0.999  # of CompRess-2q's momentum student
    same: bool = True
    teacher_view: Literal["weak", "strong"] = "weak"
    student_view: Literal["weak", "strong"] = "weak"
    cached: bool = False
    views: PositiveInt = 1  # of each image, where the teachers' features are cached
    epochs: PositiveInt = 130
    batch_size: PositiveInt = 256
    learning_rate: PositiveFloat = 0.05
    schedule: Literal["cosine", "steps"] = "cosine"
    weight_decay: PositiveFloat = 1e-4
    precision: Literal["float32", "bfloat16"] = "float32"

    def validate(self) -> None:
        known = (*OFFICIAL, *PACKAGED, *OWN)
        if not self.teachers or len(set(self.teachers)) < len(self.teachers):
            raise EffbookError(f"the teachers are {self.teachers}", "name at least one, each once")
        for name in self.teachers:
            if name not in known:
                raise EffbookError(f"there is no teacher named {name!r}", f"choose among {', '.join(known)}")
        if any(name in OWN for name in self.teachers) != bool(self.taught_at):
            raise EffbookError(
                f"the teachers {', '.join(self.teachers)} and taught_at = {self.taught_at!r} do not go together",
                "say for the CMSF chapter's networks, and only for them, under which profile it trains them",
            )
        now = own_trainings(self.teachers, self.taught_at) if self.taught_as else {}
        if self.taught_as != tuple(one.key for one in now.values()):
            raise EffbookError(f"{self.name} has teachers that the CMSF chapter trains otherwise by now", "run it anew")
        self.settings()

    def settings(self) -> "DistillSettings":
        """The library's settings of this distillation; it raises EffbookError where two of them are at odds."""
        from effbook.simreg.config import DistillSettings

        return DistillSettings(
            objective=self.objective,
            head=self.head,
            teacher_view=self.teacher_view,
            student_view=self.student_view,
            same=self.same,
            distinct_views=self.views if self.cached else None,
            size_px=self.view_px or self.image_px,
            queue_size=self.queue,
            momentum=self.momentum,
            precision=self.precision,
            seed=self.seed,
            epochs=self.epochs,
            batch=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            drops=self._drops() if self.schedule == "steps" else (),
            drop_factor=0.2,
        )

    def _drops(self) -> tuple[int, ...]:
        return tuple(sorted({max(1, round(self.epochs * at / 130)) for at in (90, 120)}))

    def datasets(self) -> tuple[str, ...]:
        weights = [(OFFICIAL | PACKAGED)[name] for name in self.teachers if name not in OWN]
        return (self.dataset, *weights)

    def needs(self) -> tuple[str, ...]:
        return () if self.student.startswith("small") else ("cuda",)

    def modules(self) -> tuple[str, ...]:
        """This recipe's code, and that of the recipes which train its teachers."""
        taught = {module for teacher in self.taught().values() for module in teacher.modules()}
        return (*super().modules(), *sorted(taught))

    def taught(self) -> dict[str, Recipe]:
        """The trainings of the teachers that the CMSF chapter has: from the same seed, so on the same images."""
        return own_trainings(self.teachers, self.taught_at, seed=self.seed)

    def training(self) -> Recipe:
        """The distillation alone, whatever is evaluated: its code is the code of the kept student."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(Distillation)}
        return make("simreg-distill", **own)

    def parts(self) -> dict[str, object]:
        """What the trained student depends on."""
        own = self.training()
        return {"fields": own.fields, "data": own.digests, "taught": self._taught_parts()}

    def _taught_parts(self) -> dict[str, object]:
        return {name: recipe.parts() for name, recipe in self.taught().items()}

    def teacher_parts(self, name: str) -> dict[str, object]:
        """What a teacher's cached features depend on: not on student, head and objective."""
        own = self.training()
        fields = ("dataset", "train_images", "image_px", "view_px", "teacher_view", "views", "precision", "seed")
        fields = {field: own.fields[field] for field in (*fields, "batch_size")}
        return {"teacher": name, "fields": fields, "data": own.digests, "taught": self._taught_parts().get(name)}

    def cost(self) -> Cost:
        gpu = 16 << 30 if self.needs() else 0
        seconds = sum(one.seconds for one in Distillation.shares(self))
        return Cost(seconds=seconds, gpu_bytes=gpu, disk_bytes=100 << 20 if gpu else 2 << 20)

    def shares(self) -> tuple[Shared, ...]:
        known = IMAGES.get(self.dataset, 50_000)
        count = min(self.train_images or known, known)
        found = [Shared(STUDENT, self.parts(), 5 + count * self.epochs / RATES.get(self.student, 2500.0))]
        found += [shared for recipe in self.taught().values() for shared in recipe.shares()]
        if self.cached:
            found += [
                Shared(TEACHER, self.teacher_parts(name), 1 + count * self.views / TEACHER_RATES.get(name, 1500.0))
                for name in self.teachers
            ]
        return tuple(found)

    def probe(self) -> dict[str, object]:
        taught = {"taught_at": "smoke", "taught_as": ()} if self.taught_at else {}
        return {"train_images": min(self.train_images or 256, 256), "epochs": min(self.epochs, 2)} | taught


def own_trainings(teachers: tuple[str, ...], profile: str, *, seed: int = 0) -> dict[str, Recipe]:
    """The trainings of those teachers that are the CMSF chapter's, by name; under `lab` of a ResNet-50 (2.2.4)."""
    own = {name: OWN[name] for name in teachers if name in OWN}
    found = {name: scale(make("cmsf-train", method=method, seed=seed), profile) for name, method in own.items()}
    larger = {"encoder": "resnet50"} if profile == "lab" else {}
    return {name: dataclasses.replace(one, **larger) for name, one in found.items()}
