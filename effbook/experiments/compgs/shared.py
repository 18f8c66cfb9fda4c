"""A codebook trained on one scene and frozen for the others, which learn their assignments only (Figure 3.5, B.3)."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from effbook.data.cache import cache_folder
from effbook.errors import EffbookError
from effbook.experiments.compgs.datasets import load_scene, scene_count
from effbook.experiments.compgs.scene import SceneRecipe
from effbook.runs.code import fingerprint
from effbook.runs.recipe import Context, Cost, register_recipe

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
        scene_count(self.dataset, self.source)
        if not self.quantised or self.after_training:
            raise EffbookError("codes can be shared only where they are trained", "name what is quantised")

    def cost(self) -> Cost:
        whole = super().cost()
        return dataclasses.replace(whole, seconds=whole.seconds * 1.3)

    def _training_key(self, scene: str, upto: int | None = None) -> str:
        own = super()._training_key(scene, upto)
        return own if scene == self.source or upto is not None else f"{own}-{self.source}-{fingerprint(self.modules())}"

    def _train_anew(self, scene: "Scene", context: Context) -> "tuple[Compressed, float]":
        """The source scene as ever; the others with its codes, which stay as they are."""
        if scene.name == self.source:
            return super()._train_anew(scene, context)
        source = load_scene(
            self.dataset, self.source, shrink=self.shrink, points=self.points, seed=self.seed, cache=cache_folder(),
            say=lambda _: None,
        )  # fmt: skip
        books = self._trained(source, context)[0].codebooks
        return self._train(scene, context, frozen={book.parameters: book.codes for book in books})
