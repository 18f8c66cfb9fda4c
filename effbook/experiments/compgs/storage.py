"""Where the bytes of a stored scene go (Tables 3.6 and B.5, the memory columns of 3.1 and B.2): nothing is trained.

3DGS keeps 59 values a Gaussian: position (3), opacity (1), colour (DC 3, other harmonics 45), scale (3), rotation (4).
CompGS keeps position and opacity as they are, and for each of the other four an index into a codebook. The Gaussians
are sorted by one covariance index, of which then only the run lengths remain; as the paper's sizes do, we leave out
those few kilobytes (a number for each code).
"""

from dataclasses import dataclass, fields
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from effbook.errors import EffbookError
from effbook.experiments.shared.arithmetic import register_arithmetic
from effbook.runs.recipe import Context, Recipe, Result

POSITION, OPACITY, DC, SH, SCALE, ROTATION = 3, 1, 3, 45, 3, 4  # values a Gaussian
FULL_BITS = 32
Bits = Annotated[int, Field(ge=1, le=64)]


@register_arithmetic
@dataclass(frozen=True, kw_only=True)
class StorageRecipe(Recipe):
    """Size of a scene of so many Gaussians in bytes, and the shares of its parts in percent.

    `unquantised_share` and `quantised_share` are parts of the whole, `index_share` and `codebook_share` of the
    quantised part. The fields after `gaussians` say how CompGS stores; BitQ has 16-bit positions and 8-bit opacities.
    """

    system: ClassVar[str] = "compgs"
    name: ClassVar[str] = "compgs-storage"

    method: Literal["3dgs", "no-sh", "compgs"]
    gaussians: PositiveInt
    codes_dc: PositiveInt = 4096
    codes_sh: PositiveInt = 4096
    codes_scale: PositiveInt = 32_768
    codes_rotation: PositiveInt = 32_768
    position_bits: Bits = 32
    opacity_bits: Bits = 32
    codebook_bits: Bits = 32
    run_length: bool = True  # of the wider covariance index

    def validate(self) -> None:
        if self.method != "compgs":
            for field in fields(self):
                if field.name not in ("method", "gaussians", "seed") and getattr(self, field.name) != field.default:
                    raise EffbookError(f"{self.method} has no {field.name}", "leave it out, or choose method compgs")

    def run(self, context: Context) -> Result:
        kept, indices, codebooks = self.bits()
        whole, quantised = kept + indices + codebooks, indices + codebooks

        def share(part: int, of: int) -> float | None:
            return 100 * part / of if of else None

        none = "nothing is quantised"
        return Result(
            metrics={
                "bytes": -(-whole // 8),
                "unquantised_share": share(kept, whole),
                "quantised_share": share(quantised, whole),
                "index_share": share(indices, quantised),
                "codebook_share": share(codebooks, quantised),
            },
            notes={} if quantised else {"index_share": none, "codebook_share": none},
        )

    def bits(self) -> tuple[int, int, int]:
        """Bits of the values that stay as they are, of the indices, and of the codebooks."""
        if self.method != "compgs":
            values = POSITION + OPACITY + DC + SCALE + ROTATION + (SH if self.method == "3dgs" else 0)
            return self.gaussians * values * FULL_BITS, 0, 0
        kept = POSITION * self.position_bits + OPACITY * self.opacity_bits
        codes = (self.codes_dc, self.codes_sh, self.codes_scale, self.codes_rotation)
        dc, sh, scale, rotation = ((count - 1).bit_length() for count in codes)  # to tell so many codes apart
        index = dc + sh + (min(scale, rotation) if self.run_length else scale + rotation)
        values = sum(count * size for count, size in zip(codes, (DC, SH, SCALE, ROTATION), strict=True))
        return self.gaussians * kept, self.gaussians * index, values * self.codebook_bits
