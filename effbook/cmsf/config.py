"""The settings of constrained mean shift, without torch. The defaults are the dissertation's."""

from dataclasses import dataclass
from typing import Literal

from effbook.training.settings import PRECISIONS, check_bank, check_choice, check_flags, check_real, check_whole


@dataclass(frozen=True, kw_only=True)
class MeanShiftSettings:
    """What a mean-shift step needs beside its constraint.

    `unconstrained_half`: the loss is the mean of the constrained one and of plain mean shift with `k` neighbours, as in
    the self-supervised setting (2.1.3.1); else `k` has no part. `cache_from_evicted`: the previous epoch's cache takes
    the entries that leave the bank, as 2.1.4.1 words it; else each new embedding. Raises EffbookError where a value is
    impossible or the bank is smaller than `k`. Source: sections 2.1.3 and 2.1.4.
    """

    k: int = 5
    bank_size: int = 128_000
    momentum: float = 0.99  # m of the target's moving average
    unconstrained_half: bool = False
    cache_from_evicted: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"  # of the networks; the bank and the search are float32
    seed: int = 0  # of the bank's first vectors and of shuffled batch norm

    def __post_init__(self) -> None:
        check_whole(self, 1, "k", "bank_size")
        check_whole(self, 0, "seed")
        check_real(self, 0, "momentum", most=1)
        check_flags(self, "unconstrained_half", "cache_from_evicted")
        check_choice(self, "precision", PRECISIONS)
        check_bank(self.bank_size, k=self.k)
