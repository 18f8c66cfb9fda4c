"""The one config of NOLA: how many random matrices, which rank, which start, and how the basis is kept."""

import difflib
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

from effbook.errors import EffbookError

Init = Literal["language", "vision", "scratch"]
INITS: tuple[str, ...] = ("language", "vision", "scratch")
BITS = (16, 8, 4, 3, 2)


@dataclass(frozen=True, kw_only=True)
class NOLASettings:
    """Everything that, beside the coefficients, determines NOLA's change of a weight (Eq. 3.1, 3.2).

    `k` and `l` random matrices span A and B. They are free of `rank`: a rank above min(m, n) is allowed (the text uses
    rank 64 for every layer of a network, small ones too); it costs compute and brings no parameters.

    The three starts (`init`); the text names none of them, the first two are those of the released code:

    - `language`: basis uniform(-1, 1)/sqrt(k), coefficients zero, A shifted by a frozen A0, scale c/r.
    - `vision`: kaiming-uniform basis, the same in every layer, alpha = 1/k, beta = 1/l, scale 1/r.
    - `scratch`: the layer's own weight is dropped; the first AB has a Kaiming-initialised weight's variance, scale c.

    Raises EffbookError where a value is impossible. Source: section 3.2.3 and the released code.
    """

    k: int
    l: int  # noqa: E741  the text's letter
    rank: int
    scale_c: float = 1.0
    seed: int = 0
    init: Init = "language"
    shared_basis: bool | None = None  # None: shared exactly where the released code shares it (vision)
    regenerate: bool = False  # draw the basis anew, chunk by chunk, in every forward and backward pass
    chunk: int = 64  # basis matrices at a time when regenerating
    bits: int | None = None  # quantisation-aware training of the coefficients

    def __post_init__(self) -> None:
        for name in ("k", "l", "rank", "chunk"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise EffbookError(f"NOLA's {name} is {value!r}", f"give a whole number of at least 1 for {name}")
        if type(self.seed) is not int or not 0 <= self.seed < 2**63:
            raise EffbookError(f"NOLA's seed is {self.seed!r}", "give a whole number from 0 to 2^63 - 1")
        if self.init not in INITS:
            raise EffbookError(f"NOLA has no init {self.init!r}", f"choose one of {', '.join(INITS)}")
        if isinstance(self.scale_c, bool) or not isinstance(self.scale_c, int | float) or not 0 < self.scale_c < 1e9:
            raise EffbookError(f"NOLA's scale_c is {self.scale_c!r}", "give a positive number")
        if self.bits is not None and (type(self.bits) is not int or self.bits not in BITS):
            raise EffbookError(f"{self.bits!r} bits a coefficient", f"choose one of {BITS}, or None for full precision")
        if self.shared_basis is None:
            object.__setattr__(self, "shared_basis", self.init == "vision")
        for name in ("shared_basis", "regenerate"):
            if type(getattr(self, name)) is not bool:
                raise EffbookError(f"NOLA's {name} is {getattr(self, name)!r}", "give True or False")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build the settings from a plain dictionary; an unknown or missing key raises EffbookError."""
        known = {field.name for field in fields(cls)}
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                raise EffbookError(f"NOLA has no setting {key!r}", f"did you mean {near[0]}" if near else f"{known=}")
        missing = {"k", "l", "rank"} - set(values)
        if missing:
            raise EffbookError(f"NOLA's settings lack {', '.join(sorted(missing))}", "give k, l and rank")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON scalars."""
        return asdict(self)

    @property
    def scale(self) -> float:
        """The factor before AB: c/r for `language`, 1/r for `vision`, c for `scratch`."""
        return {"language": self.scale_c / self.rank, "vision": 1.0 / self.rank, "scratch": self.scale_c}[self.init]
