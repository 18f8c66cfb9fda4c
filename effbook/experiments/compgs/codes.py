"""How the Gaussians spread over the codes, and what one codebook alone costs (Figures 3.4 and B.1, section B.5)."""

import heapq
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from effbook.errors import EffbookError
from effbook.experiments.compgs.scene import SceneRecipe
from effbook.runs.recipe import Context, Result, register_recipe

if TYPE_CHECKING:
    from effbook.compgs.model import Compressed


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
        from effbook.experiments.compgs.measuring import measured

        which = self.quantised.split().index(self.counted) if self.counted else 0
        uses: list[list[int]] = []  # of each scene: Gaussians by code, the most used code first

        def look(model: "Compressed") -> None:
            book = model.codebooks[which]
            counts = book.indices.int().bincount(minlength=len(book.codes))
            uses.append(counts.sort(descending=True).values.tolist())

        result = measured(self, context, look)
        result.series["Gaussians by code"] = [float(n) for n in uses[0]]
        result.metrics["top"] = statistics.fmean(100 * float(used[0]) / sum(used) for used in uses)
        result.metrics["fixed"] = statistics.fmean(float(bits_for(len(used))) for used in uses)
        result.metrics["huffman"] = statistics.fmean(huffman_bits(used) for used in uses)
        return result


def huffman_bits(counts: Iterable[float]) -> float:
    """Mean bits a symbol of a Huffman code for symbols that occur so often [K]; 0 for a single symbol."""
    waiting = [int(n) for n in counts if n > 0]
    total, bits = sum(waiting), 0
    heapq.heapify(waiting)
    while len(waiting) > 1:  # each joining makes all its symbols one bit longer
        joined = heapq.heappop(waiting) + heapq.heappop(waiting)
        bits += joined
        heapq.heappush(waiting, joined)
    return bits / total if total else 0.0
