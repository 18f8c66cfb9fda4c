"""How a scene is compressed (`CompGSSettings`) and in how many bits it is kept (`Storage`), without torch."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from effbook.errors import EffbookError
from effbook.gaussians.config import MOST_SEED, check_real, check_whole
from effbook.gaussians.parameters import SHAPES

Bits = Literal[4, 8, 16, 32]


@dataclass(frozen=True)
class Book:
    """Which parameters share a codebook, and of how many codes: Book(("sh_dc", "sh_rest"), 4096) joins the colours."""

    parameters: tuple[str, ...]
    codes: int

    def __post_init__(self) -> None:
        if type(self.codes) is not int or self.codes < 1:
            raise EffbookError(f"a codebook has {self.codes!r} codes", "give at least 1")


def books(*, colour: int = 4096, covariance: int = 16_384) -> tuple[Book, ...]:
    """The dissertation's four codebooks: DC, other harmonics, scale, rotation (section 3.1.4)."""
    sizes = {"sh_dc": colour, "sh_rest": colour, "scales": covariance, "rotations": covariance}
    return tuple(Book((name,), codes) for name, codes in sizes.items())


@dataclass(frozen=True, kw_only=True)
class CompGSSettings:
    """How a scene is compressed while it is trained; the defaults are the dissertation's for 30,000 iterations."""

    books: tuple[Book, ...] = field(default_factory=books)
    start: int = 20_000  # the first quantised iteration
    interval: int = 100  # t: iterations from one assignment to the next
    end: int = 25_000  # the last assignment; codes go on moving with their members
    kmeans_iterations: int = 1  # rounds of centres and assignment each time
    penalty: float = 1e-7  # lambda_reg, of the sum of opacities
    penalty_start: int = 15_000
    penalty_end: int = 20_000
    prune_interval: int = 1_000  # while the penalty acts
    least_opacity: float = 0.005
    seed: int = 0

    def __post_init__(self) -> None:
        named = [name for book in self.books for name in book.parameters]
        if len(set(named)) < len(named) or not set(named) <= set(SHAPES):
            raise EffbookError(f"codebooks for {named}", f"name each of {', '.join(SHAPES)} at most once")
        check_whole(self, 1, "interval", "kmeans_iterations", "prune_interval")
        check_whole(self, 0, "start", "end", "penalty_start", "penalty_end")
        check_whole(self, 0, "seed", most=MOST_SEED)
        check_real(self, 0, "penalty", "least_opacity")
        if self.end < self.start:
            raise EffbookError(f"the last assignment ({self.end}) is before the first ({self.start})", "raise end")


@dataclass(frozen=True, kw_only=True)
class Storage:
    """In how many bits the parts are kept: 32 are floats, fewer are whole numbers by absmax quantisation.

    BIT_QUANTISED is the dissertation's BitQ: positions in 16 bits, opacities in 8.
    """

    plain_bits: dict[str, Bits] = field(default_factory=dict)  # by parameter; 32 if not named
    code_bits: Bits = 32
    entropy: bool = False

    def __post_init__(self) -> None:
        if unknown := set(self.plain_bits) - set(SHAPES):
            raise EffbookError(f"{sorted(unknown)} is no parameter of a Gaussian", f"choose of {', '.join(SHAPES)}")
        if not {self.code_bits, *self.plain_bits.values()} <= set(get_args(Bits)):
            raise EffbookError("a number of bits is not 4, 8, 16 or 32", "choose one of them")


PACKED = Storage()
BIT_QUANTISED = Storage(plain_bits={"means": 16, "opacities": 8})


def int_x(bits: Bits, *, positions: bool = True) -> Storage:
    """The dissertation's baselines Int-16, Int-8, Int-4, with or without ("no-pos") the positions."""
    named: dict[str, Bits] = {name: bits for name in SHAPES if positions or name != "means"}
    return Storage(plain_bits=named, code_bits=bits)
