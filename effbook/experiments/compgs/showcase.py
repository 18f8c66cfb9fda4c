"""One scene trained in several ways and kept as files, to be looked at beside each other (Figure 3.3, and the viewer).

The other runs of `mini` see 64 pixels a side; that is enough for numbers and too little for pictures. Here the still
life is trained on all its views in full size.
"""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

from effbook.errors import EffbookError
from effbook.experiments.compgs.scene import SceneRecipe, storage_of
from effbook.runs.profiles import register_profiles
from effbook.runs.recipe import Context, Cost, Recipe, Result, register_recipe

FOUR = "dc sh scale rotation"
PENALTY = 1e-7
# The dissertation's models by their fields; `scaled` fits them to the scene.
VARIANTS = {
    "3dgs": SceneRecipe(dataset="still-lifes"),
    "no-sh": SceneRecipe(dataset="still-lifes", sh_degree=0),
    "16k": SceneRecipe(dataset="still-lifes", quantised=FOUR, penalty=PENALTY),
    "32k": SceneRecipe(dataset="still-lifes", quantised=FOUR, penalty=PENALTY, codes_covariance=32_768),
    "bitq": SceneRecipe(
        dataset="still-lifes", quantised=FOUR, penalty=PENALTY, codes_covariance=32_768, storage="bitq"
    ),
}


@register_recipe
@dataclass(frozen=True, kw_only=True)
class ShowcaseRecipe(Recipe):
    """Trains one still life as each of VARIANTS; the files are artifacts, PSNR and bytes of each are metrics."""

    system: ClassVar[str] = "compgs"
    name: ClassVar[str] = "compgs-showcase"

    dataset: Literal["still-lifes", "toy"] = "still-lifes"
    scene: str = "metals"
    most_gaussians: int = 10_000
    points: int = 4000
    divide_iterations: int = 10
    divide_codes: int = 32

    def validate(self) -> None:
        if min(self.divide_iterations, self.divide_codes) < 1:
            raise EffbookError("a divisor is below 1", "give at least 1")
        self.scaled("3dgs")

    def cost(self) -> Cost:
        return Cost(seconds=30 + 4 * 0.03 * 30_000 / self.divide_iterations)

    def scaled(self, variant: str) -> SceneRecipe:
        """A variant at this recipe's scale."""
        from effbook.experiments.compgs.profiles import ITERATIONS

        whole = VARIANTS[variant]
        return dataclasses.replace(
            whole,
            dataset=self.dataset,
            scene=self.scene,
            points=self.points,
            most_gaussians=self.most_gaussians,
            seed=self.seed,
            penalty=round(whole.penalty * 330, 12),
            codes_colour=max(2, whole.codes_colour // self.divide_codes),
            codes_covariance=max(2, whole.codes_covariance // self.divide_codes),
            **{field: max(1, getattr(whole, field) // self.divide_iterations) for field in ITERATIONS},
        )

    def run(self, context: Context) -> Result:
        from effbook.compgs.container import read, write
        from effbook.data.cache import cache_folder
        from effbook.experiments.compgs.datasets import load_scene
        from effbook.gaussians.formats import write_spz

        metrics: dict[str, float | int | None] = {}
        artifacts = {}
        scene = load_scene(
            self.dataset,
            self.scene,
            shrink=1,
            points=self.points,
            seed=self.seed,
            cache=cache_folder(),
            say=context.display.say,
        )
        for variant in VARIANTS:
            recipe = self.scaled(variant)
            model, _ = recipe._trained(scene, context)
            path = context.folder / f"{variant}.compgs"
            metrics[f"{variant}_bytes"] = write(model, path, storage_of(recipe.storage))
            metrics[f"{variant}_gaussians"] = len(model)
            stored = read(path)
            metrics[f"{variant}_psnr"] = recipe._measure(stored, scene, context.device)[0]["psnr"]
            write_spz(stored.decode(), context.folder / f"{variant}.spz")
            artifacts[f"{variant}.spz"] = context.folder / f"{variant}.spz"
        return Result(metrics=metrics, artifacts=artifacts)


def _scale(recipe: Recipe, profile: str) -> Recipe | None:
    if profile == "smoke":
        return dataclasses.replace(
            recipe, dataset="toy", points=300, most_gaussians=400, divide_iterations=1000, divide_codes=512
        )
    return recipe if profile == "mini" else None


register_profiles(ShowcaseRecipe.name, _scale, seeds={"mini": (0,)})
