"""Train scenes as 3DGS or CompGS, store them, and measure pictures of held-out views (Tables 3.1 to 3.3, 3.7 to 3.9).

One run trains every scene of a data set; its metrics are means over the scenes. `training` trains a scene, once for all
rows that store or count it in other ways; `measuring` stores it and draws what was stored.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from effbook.compgs.config import BIT_QUANTISED, PACKED, Book, CompGSSettings, Storage, int_x
from effbook.errors import EffbookError
from effbook.experiments.compgs.datasets import DATASETS, Dataset, scene_count, scene_names
from effbook.experiments.compgs.sharing import shares
from effbook.gaussians import toolkit
from effbook.gaussians.config import DensitySettings, TrainSettings
from effbook.runs.recipe import Context, Cost, Recipe, Result, Shared, register_recipe

if TYPE_CHECKING:
    from effbook.gaussians.scenes import Scene

PARAMETERS = {"dc": "sh_dc", "sh": "sh_rest", "scale": "scales", "rotation": "rotations", "position": "means"}
STORAGES: dict[str, Storage] = {
    "packed": PACKED,
    "bitq": BIT_QUANTISED,
    "int16": int_x(16),
    "int8": int_x(8),
    "int8-no-pos": int_x(8, positions=False),
    "int4-no-pos": int_x(4, positions=False),
}
ITERATIONS = (
    "iterations", "sh_interval", "densify_start", "densify_end", "densify_interval", "reset_interval",
    "kmeans_start", "kmeans_end", "kmeans_interval", "penalty_start", "penalty_end", "prune_interval",
)  # fmt: skip
PROBE_ITERATIONS = 300
PROBE_INTERVALS = {"densify_interval": 10, "kmeans_interval": 10}  # that there be steps without, too
LPIPS_WEIGHTS = ("vgg16", "lpips")


@register_recipe
@dataclass(frozen=True, kw_only=True)
class SceneRecipe(Recipe):
    """3DGS where nothing is quantised and nothing penalised; the defaults are the dissertation's.

    `quantised` names what gets a codebook, while training or (`after_training`) when it has ended: words of PARAMETERS
    with spaces between codebooks and a plus between those that share one ("sh+dc scale rotation").
    """

    system: ClassVar[str] = "compgs"
    name: ClassVar[str] = "compgs-scene"
    varying: ClassVar[tuple[str, ...]] = ("fps", "train_minutes", "fps by scene", "train_minutes by scene")

    dataset: Literal[
        "mip-nerf360", "tanks-and-temples", "deep-blending", "nerf-synthetic", "dl3dv-140", "arkit-200", "fox",
        "still-lifes", "still-lifes-800", "toy",
    ]  # fmt: skip
    scene: str = "all"
    shrink: PositiveInt = 1  # area down-scaling of the images
    every_nth_view: PositiveInt = 1  # of the training views
    points: Annotated[int, Field(ge=4)] = 100_000  # to start from, where a scene brings none
    most_gaussians: PositiveInt | None = None
    # 3DGS
    iterations: PositiveInt = 30_000
    sh_degree: Annotated[int, Field(ge=0, le=3)] = 3
    sh_interval: PositiveInt = 1_000
    densify_start: NonNegativeInt = 500
    densify_end: NonNegativeInt = 15_000
    densify_interval: PositiveInt = 100
    reset_interval: PositiveInt = 3_000
    gradient_threshold: NonNegativeFloat = 2e-4
    least_opacity: NonNegativeFloat = 0.005
    # CompGS
    quantised: str = ""
    codes_colour: PositiveInt = 4096
    codes_covariance: PositiveInt = 16_384
    kmeans_start: NonNegativeInt = 20_000
    kmeans_end: NonNegativeInt = 25_000
    kmeans_interval: PositiveInt = 100
    kmeans_iterations: PositiveInt = 1
    after_training: bool = False
    penalty: NonNegativeFloat = 0.0
    penalty_start: NonNegativeInt = 15_000
    penalty_end: NonNegativeInt = 20_000
    prune_interval: PositiveInt = 1_000
    # how the trained scene is stored
    storage: Literal["packed", "bitq", "int16", "int8", "int8-no-pos", "int4-no-pos"] = "packed"

    def validate(self) -> None:
        scene_count(self.dataset, self.scene)
        if self.after_training and not self.quantised:
            raise EffbookError("nothing is quantised after training", "name parameters in quantised")
        if strange := [word for word in self.quantised.replace("+", " ").split() if word not in PARAMETERS]:
            raise EffbookError(f"{strange[0]!r} cannot be quantised", f"choose of {', '.join(PARAMETERS)}")
        self.training()
        self.compression()

    def datasets(self) -> tuple[str, ...]:
        photos = () if self._described.generated else (self.dataset,)
        return photos + (LPIPS_WEIGHTS if self.measures_lpips else ())

    @property
    def _described(self) -> Dataset:
        return DATASETS[self.dataset]

    @property
    def on_cpu(self) -> bool:
        """Whether the scenes are small enough to be trained on the CPU."""
        return self._described.small is not None and self.shrink >= self._described.small

    @property
    def measures_lpips(self) -> bool:
        """Whether LPIPS is measured: on the dissertation's own data sets; its weights (550 MB) are in no package."""
        return self._described.small is None and not self._described.generated

    def cost(self) -> Cost:
        scenes, training = scene_count(self.dataset, self.scene), self.seconds_an_iteration * self.iterations
        if self.on_cpu:
            return Cost(seconds=scenes * (3 + training))
        gpu, disk = (4, 0.1) if self._described.generated else (20, 1)
        return Cost(seconds=scenes * training, gpu_bytes=gpu * 2**30, disk_bytes=int(scenes * disk * 2**30))

    @property
    def seconds_an_iteration(self) -> float:
        """About so long takes a step of training, where the scene is trained."""
        return 0.008 if self.on_cpu else 0.06

    def shares(self) -> tuple[Shared, ...]:
        return shares(self)

    def needs(self) -> tuple[str, ...]:
        return () if self.on_cpu else toolkit.needs()

    def device(self, context: Context) -> str:
        """Small scenes are made for the CPU, and stay there on a machine with a card: it would give other numbers."""
        return "cpu" if self.on_cpu else context.device

    def probe(self) -> dict[str, object]:
        """One scene, and the same schedule in some 300 iterations."""
        by, scene = self.iterations // PROBE_ITERATIONS, scene_names(self.dataset, self.scene)[0]
        return {"scene": scene} | (in_short(self, by) | PROBE_INTERVALS if by > 1 else {})

    def plain(self, **changes: object) -> "SceneRecipe":
        """The run of `compgs-scene` that this recipe looks at in another way."""
        return SceneRecipe(
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(SceneRecipe)} | changes
        )

    def codes_of(self, scene: str) -> str | None:
        """The scene whose codes `scene` takes and leaves as they are; None for codes of its own."""
        return None

    def training(self) -> TrainSettings:
        """The settings of 3DGS."""
        density = DensitySettings(
            start=self.densify_start,
            end=self.densify_end,
            interval=self.densify_interval,
            reset_interval=self.reset_interval,
            gradient_threshold=self.gradient_threshold,
            least_opacity=self.least_opacity,
            most=self.most_gaussians,
        )
        return TrainSettings(
            iterations=self.iterations,
            sh_degree=self.sh_degree,
            sh_interval=self.sh_interval,
            density=density,
            seed=self.seed,
        )

    def compression(self) -> CompGSSettings:
        """The settings of CompGS."""
        books = []
        for words in self.quantised.split():
            names = tuple(PARAMETERS[word] for word in words.split("+"))
            colour = any(name.startswith("sh_") for name in names)
            books.append(Book(names, self.codes_colour if colour else self.codes_covariance))
        return CompGSSettings(
            books=tuple(books),
            start=self.kmeans_start,
            end=self.kmeans_end,
            interval=self.kmeans_interval,
            kmeans_iterations=self.kmeans_iterations,
            penalty=self.penalty,
            penalty_start=self.penalty_start,
            penalty_end=self.penalty_end,
            prune_interval=self.prune_interval,
            least_opacity=self.least_opacity,
            seed=self.seed,
        )

    def storing(self) -> Storage:
        """In how many bits the trained scene is stored."""
        return STORAGES[self.storage]

    def load(self, scene: str, say: Callable[[str], None] = lambda sentence: None) -> "Scene":
        """A scene with images and first points as this recipe has them; `say` hears what of it is left out."""
        from effbook.experiments.compgs.loading import load_scene

        return load_scene(self.dataset, scene, shrink=self.shrink, points=self.points, seed=self.seed, say=say)

    def run(self, context: Context) -> Result:
        from effbook.experiments.compgs.measuring import measured

        return measured(self, context)


def in_short(recipe: SceneRecipe, by: int) -> dict[str, int]:
    """The fields that count iterations, divided and at least 1: the same schedule in less time."""
    return {field: max(1, getattr(recipe, field) // by) for field in ITERATIONS}
