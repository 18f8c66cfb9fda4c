"""One scene trained in several ways and kept as files, to be looked at beside each other (Figure 3.3, and the viewer).

The other runs of `mini` see 64 pixels a side; that is enough for numbers and too little for pictures. Here the still
life is trained on all its views in full size.
"""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import PositiveInt

from effbook.experiments.compgs.scene import SceneRecipe, in_short
from effbook.runs.profiles import register_profiles
from effbook.runs.recipe import Context, Cost, Recipe, Result, Shared, register_recipe

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
    most_gaussians: PositiveInt = 10_000
    points: PositiveInt = 4000
    divide_iterations: PositiveInt = 10
    divide_codes: PositiveInt = 32

    def validate(self) -> None:
        self.scaled("3dgs")

    def cost(self) -> Cost:
        return Cost(seconds=30 + 4 * 0.03 * 30_000 / self.divide_iterations)

    def shares(self) -> tuple[Shared, ...]:
        return tuple({repr(part): part for variant in VARIANTS for part in self.scaled(variant).shares()}.values())

    def scaled(self, variant: str) -> SceneRecipe:
        """A variant at this recipe's scale."""
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
            **in_short(whole, self.divide_iterations),
        )

    def probe(self) -> dict[str, object]:
        """The same schedule in a hundred iterations, with fewer Gaussians."""
        return {"divide_iterations": 300, "most_gaussians": 3000, "points": 2000}

    def run(self, context: Context) -> Result:
        from effbook.compgs.container import read, write
        from effbook.experiments.compgs.measuring import measure
        from effbook.experiments.compgs.training import trained
        from effbook.gaussians.formats import write_spz

        metrics: dict[str, float | int | None] = {}
        artifacts = {}
        scene = self.scaled("3dgs").load(self.scene, context.display.say)
        for variant in VARIANTS:
            recipe = self.scaled(variant)
            model, _ = trained(recipe, scene, context)
            path, shown = context.folder / f"{variant}.compgs", context.folder / f"{variant}.spz"
            metrics[f"{variant}_bytes"] = write(model, path, recipe.storing())
            metrics[f"{variant}_gaussians"] = len(model)
            stored = read(path)
            scores, _ = measure(stored, scene, sh_degree=recipe.sh_degree, device=recipe.device(context), lpips=False)
            metrics[f"{variant}_psnr"] = scores["psnr"]
            write_spz(stored.decode(), shown)
            artifacts[shown.name] = shown
        return Result(metrics=metrics, artifacts=artifacts)


def _scale(recipe: Recipe, profile: str) -> Recipe | None:
    if profile == "smoke":
        return dataclasses.replace(
            recipe, dataset="toy", points=300, most_gaussians=400, divide_iterations=1000, divide_codes=512
        )
    return recipe if profile == "mini" else None


register_profiles(ShowcaseRecipe.name, _scale, seeds={"mini": (0,)})
