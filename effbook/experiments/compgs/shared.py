"""A codebook trained on one scene and frozen for the others, which learn their assignments only (Figure 3.5, B.3)."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from effbook.errors import EffbookError
from effbook.experiments.compgs.datasets import scene_count, scene_names
from effbook.experiments.compgs.scene import SceneRecipe
from effbook.runs.recipe import Cost, register_recipe


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

    def codes_of(self, scene: str) -> str | None:
        return None if scene == self.source else self.source

    def probe(self) -> dict[str, object]:
        """One scene that takes the codes of `source`, which is trained for it."""
        others = [name for name in scene_names(self.dataset, self.scene) if name != self.source]
        return super().probe() | {"scene": others[0] if others else self.source}
