"""How the Gaussians spread over the codes, and what one codebook alone costs (Figures 3.4 and B.1, section B.5)."""

import heapq
import statistics
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from effbook.errors import EffbookError
from effbook.experiments.compgs.scene import SceneRecipe
from effbook.runs.recipe import Context, Result, register_recipe


@register_recipe
@dataclass(frozen=True, kw_only=True)
class CodesRecipe(SceneRecipe):
    """As `compgs-scene`, and how unevenly the codebook `counted` (the first if not named) is used; means over scenes.

    Metrics: `top`, the share of the Gaussians in the largest cluster in percent; `fixed`, the bits of an index of fixed
    width; `huffman`, the mean bits of an index in a Huffman code.
    """

    name: ClassVar[str] = "compgs-codes"

    counted: str = ""  # as a word of `quantised`

    def validate(self) -> None:
        super().validate()
        if not self.quantised:
            raise EffbookError("without a codebook there are no codes to count", "name what is quantised")
        if self.counted and self.counted not in self.quantised.split():
            raise EffbookError(f"{self.counted!r} has no codebook", f"choose one of {self.quantised}")

    def run(self, context: Context) -> Result:
        from effbook.compgs.bits import bits_for
        from effbook.data.cache import cache_folder
        from effbook.experiments.compgs.datasets import load_scene, scene_names

        result = super().run(context)
        which = self.quantised.split().index(self.counted) if self.counted else 0
        found: dict[str, list[float]] = {"top": [], "fixed": [], "huffman": []}
        for name in scene_names(self.dataset, self.scene):
            scene = load_scene(
                self.dataset, name, shrink=self.shrink, points=self.points, seed=self.seed, cache=cache_folder(),
                say=lambda _: None,
            )  # fmt: skip
            model, _ = self._trained(scene, context)
            book = model.codebooks[which]
            used = np.sort(np.bincount(book.indices.numpy(), minlength=len(book.codes)))[::-1]
            result.series.setdefault("Gaussians by code", used.astype(float).tolist())  # of the first scene
            found["top"].append(100 * float(used[0]) / len(model))
            found["fixed"].append(float(bits_for(len(book.codes))))
            found["huffman"].append(huffman_bits(used))
        result.metrics.update({name: statistics.fmean(values) for name, values in found.items()})
        return result


def huffman_bits(counts: np.ndarray) -> float:
    """Mean bits a symbol of a Huffman code for symbols that occur so often [K]; 0 for a single symbol."""
    waiting = [int(n) for n in counts if n > 0]
    total, bits = sum(waiting), 0
    heapq.heapify(waiting)
    while len(waiting) > 1:  # each joining makes all its symbols one bit longer
        joined = heapq.heappop(waiting) + heapq.heappop(waiting)
        bits += joined
        heapq.heappush(waiting, joined)
    return bits / total if total else 0.0
