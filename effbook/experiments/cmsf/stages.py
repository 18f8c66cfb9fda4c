"""The stages of the cross-modal table (A.1.2, Table A.4): all that determines a training of two modalities.

A stage is a method and the modality that it trains, such as "cmsf-rgb". It starts from the last network of its own
modality among the stages before it. CoCLR and CMSF are constrained by the last network of the other modality, which
stays as it is. So CMSF_RGB^Flow starts from InfoNCE_RGB: "we initialize all models using an InfoNCE pre-trained model",
although the table writes InfoNCE_Flow alone before it. Each stage is kept, and rows that share it train it once.
"""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from effbook.errors import EffbookError
from effbook.experiments.cmsf.settings import IMAGES, Share
from effbook.runs.recipe import Cost, Recipe, Shared, make
from effbook.training.settings import check_bank

STAGE = "cmsf-stage"  # kind of kept result
OTHER = {"rgb": "flow", "flow": "rgb"}
CROSS = ("coclr", "cmsf")  # methods with a constraint from the other modality
CLIPS = 9_537  # of UCF-101's first split

Stage = Literal[
    "infonce-rgb", "infonce-flow", "msf-rgb", "msf-flow", "coclr-rgb", "coclr-flow", "cmsf-rgb", "cmsf-flow"
]


def before(stages: tuple[str, ...], modality: str) -> tuple[str, ...]:
    """What the last network of a modality comes from, itself last; () where there is none."""
    places = [place for place, stage in enumerate(stages) if stage.endswith(f"-{modality}")]
    return needed(stages[: places[-1] + 1]) if places else ()


def needed(stages: tuple[str, ...]) -> tuple[str, ...]:
    """The stages without those that the last one does not come from."""
    method, modality = stages[-1].split("-")
    used = {*before(stages[:-1], modality), *(before(stages[:-1], OTHER[modality]) if method in CROSS else ())}
    return tuple(stage for stage in stages[:-1] if stage in used) + stages[-1:]


@dataclass(frozen=True, kw_only=True)
class Stages(Recipe):
    """All that determines a series of stages; the defaults are the dissertation's.

    `modalities` says what the two are: RGB frames and optical flow of videos; or as a stand-in the luminance of an
    image in the place of RGB and its colour, which is the better at retrieval here, as flow is there, in that of flow.
    The rate falls by ten at four fifths of each stage (epoch 80 of 100); for InfoNCE and MSF the dissertation gives no
    rate, and they have the same. `k` are CoCLR's "top 5", too. Encoder and projector go on from stage to stage; a
    predictor, which InfoNCE and CoCLR do not have, is drawn anew.
    """

    system: ClassVar[str] = "cmsf"

    stages: tuple[Stage, ...] = ("infonce-flow",)
    modalities: Literal["rgb-flow", "luminance-colour"] = "rgb-flow"
    dataset: str = "ucf101"
    train_images: PositiveInt | None = None  # or clips; None: all
    image_px: PositiveInt = 128
    frames: PositiveInt = 32  # of a clip
    encoder: Literal["s3d", "resnet18", "small", "small-half"] = "s3d"
    k: PositiveInt = 5
    k_prime: PositiveInt = 10
    bank: PositiveInt = 8_192
    infonce_epochs: PositiveInt = 400
    msf_epochs: PositiveInt = 200
    epochs: PositiveInt = 100  # of CoCLR and CMSF
    batch_size: PositiveInt = 128
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 1e-5
    momentum: Share = 0.99  # m of the target

    def validate(self) -> None:
        check_bank(self.bank, k=self.k_prime, batch=self.batch_size)
        if self.k_prime < self.k:
            raise EffbookError(f"k' = {self.k_prime} is smaller than k = {self.k}", "choose k' of at least k")
        videos = {self.modalities == "rgb-flow", self.dataset == "ucf101", self.encoder == "s3d"}
        if len(videos) > 1:
            raise EffbookError("rgb-flow, ucf101 and s3d go together", "give all three or none")
        if not self.stages or len(set(self.stages)) < len(self.stages):
            raise EffbookError(f"the stages are {', '.join(self.stages) or 'none'}", "name each stage once")
        for place, stage in enumerate(self.stages):
            method, modality = stage.split("-")
            wanted = [modality] * (method != "infonce") + [OTHER[modality]] * (method in CROSS)
            for one in wanted:
                if not before(self.stages[:place], one):
                    raise EffbookError(f"{stage} has no network of {one} before it", f"put infonce-{one} before it")

    def datasets(self) -> tuple[str, ...]:
        return (self.dataset,)

    def needs(self) -> tuple[str, ...]:
        return ("cuda",) if self.encoder in ("s3d", "resnet18") else ()

    def training(self) -> "Stages":
        """The training alone, whatever is evaluated: its code is the code of the kept networks."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(Stages)}
        return make("cmsf-modal-train", **own | {"stages": needed(self.stages)})

    def up_to(self, modality: str) -> "Stages | None":
        """The recipe that ends with the last network of a modality before the last stage; None where none is."""
        stages = before(self.stages[:-1], modality)
        return dataclasses.replace(self, stages=stages) if stages else None

    def chain(self) -> "tuple[Stages, ...]":
        """For each stage that is needed the recipe that ends with it, in order."""
        own = self.training().stages
        return tuple(dataclasses.replace(self, stages=own[: place + 1]).training() for place in range(len(own)))

    def parts(self) -> dict[str, object]:
        """What the network of the last stage depends on."""
        own = self.training()
        return {"fields": own.fields, "data": own.digests}

    def stage_epochs(self) -> int:
        """Epochs of the last stage."""
        method = self.stages[-1].split("-")[0]
        return {"infonce": self.infonce_epochs, "msf": self.msf_epochs}.get(method, self.epochs)

    def images(self) -> int:
        """How many images or clips are trained on, for estimates."""
        known = CLIPS if self.dataset == "ucf101" else IMAGES.get(self.dataset, 50_000)
        return min(self.train_images or known, known)

    def stage_seconds(self) -> float:
        """An estimate for the last stage: of a CPU's two cores at small scale, of one GPU else."""
        cross = self.stages[-1].split("-")[0] in CROSS
        rate = {"s3d": 60.0, "resnet18": 1400.0}.get(self.encoder, 1000.0)
        return 3 + self.images() * self.stage_epochs() * (1.33 + 0.33 * cross) / rate

    def shares(self) -> tuple[Shared, ...]:
        return tuple(Shared(STAGE, one.parts(), one.stage_seconds()) for one in self.chain())

    def cost(self) -> Cost:
        gpu = {"s3d": 40 << 30, "resnet18": 6 << 30}.get(self.encoder, 0)
        return Cost(
            seconds=sum(one.seconds for one in self.shares()), gpu_bytes=gpu, disk_bytes=(40 if gpu else 1) << 20
        )

    def probe(self) -> dict[str, object]:
        images = 4 * self.batch_size
        short = {name: min(getattr(self, name), 2) for name in ("infonce_epochs", "msf_epochs", "epochs")}
        return short | {"train_images": min(self.train_images or images, images)}
