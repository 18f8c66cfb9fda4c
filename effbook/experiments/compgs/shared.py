"""A codebook trained on one scene and frozen for the others, which learn their assignments only (Figure 3.5, B.3)."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from effbook.errors import EffbookError
from effbook.experiments.compgs.datasets import load_scene, scene_names
from effbook.experiments.compgs.scene import SceneRecipe
from effbook.experiments.profiles import register_profiles
from effbook.experiments.recipe import Context, Cost, Recipe, register_recipe

if TYPE_CHECKING:
    from effbook.compgs import Compressed
    from effbook.gaussians.scenes import Scene


@register_recipe
@dataclass(frozen=True, kw_only=True)
class SharedRecipe(SceneRecipe):
    """As `compgs-scene`, with the codes of the scene `source`; the mean is over all scenes, `source` among them."""

    name: ClassVar[str] = "compgs-shared"

    source: str = "counter"

    def validate(self) -> None:
        super().validate()
        scene_names(self.dataset, self.source)
        if not self.quantised or self.after_training:
            raise EffbookError("codes can be shared only where they are trained", "name what is quantised")

    def cost(self) -> Cost:
        whole = super().cost()
        return dataclasses.replace(whole, seconds=whole.seconds * 1.3)

    def _train(self, scene: "Scene", context: Context) -> "Compressed":
        """The source scene as ever; the others with its codes, which stay as they are."""
        from effbook.compgs.quantise import fit
        from effbook.data.cache import cache_folder
        from effbook.gaussians.model import from_points
        from effbook.gaussians.train import camera_extent

        source = load_scene(
            self.dataset,
            self.source,
            shrink=self.shrink,
            points=self.points,
            seed=self.seed,
            cache=cache_folder(),
            say=lambda _: None,
        )
        if scene.name == source.name:
            return super()._train(scene, context)
        codes, _ = self._trained(source, context)
        views = scene.train[:: self.every_nth_view]
        cameras = [scene.cameras[i] for i in views]
        tracker = context.progress(self.iterations, scene.name)
        return fit(
            from_points(scene.points.to(context.device), scene.colours.to(context.device)),
            cameras,
            [scene.images[i].to(context.device) for i in views],
            dataclasses.replace(self.training(), background=scene.background or (0.0, 0.0, 0.0)),
            self.compression(),
            extent=camera_extent(cameras),
            frozen={book.parameters: book.codes for book in codes.codebooks},
            watch=lambda iteration, loss: tracker.advance(100, loss=loss) if iteration % 100 == 0 else None,
        )


def _scale(recipe: Recipe, profile: str) -> Recipe | None:
    """As its parent, with `metals` for the scene Counter; under smoke there is one scene, its own source."""
    from effbook.experiments.compgs.profiles import SKIP, TABLE

    changes = TABLE.get(profile, {}) | ({} if profile == "paper" else {"source": "metals"})
    values = {field: value(recipe) if callable(value) else value for field, value in changes.items()}
    return None if SKIP in values.values() else dataclasses.replace(recipe, **values)


register_profiles(SharedRecipe.name, _scale)
