"""The constraints of mean shift: which entries of the bank may be positives of a query (section 2.1.3).

Each is an object that is called with the bank and the positions [B] of the queries in it: a batch enters the bank
before the search, so the bank holds u, w and the label of every query, and the query is its own first neighbour.
A new constraint is any object with the two members of `Constraint`.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from effbook.cmsf.bank import Bank
from effbook.cmsf.config import check_flags, check_real, check_whole
from effbook.errors import EffbookError

Second = Literal["previous", "third", "other"]  # M' holds: the previous epoch, a third view, another modality


class Positives(NamedTuple):
    """The set S_i of each query: bank positions [B, k], and which of them count [B, k].

    Without positions the mask is over the whole bank, [B, filled]: top-all, whose members are never gathered.
    """

    positions: Tensor | None
    mask: Tensor


class Constraint(Protocol):
    """What the step asks of a constraint."""

    second: ClassVar[Second | None]

    def __call__(self, bank: Bank, positions: Tensor) -> Positives: ...


@dataclass(frozen=True, kw_only=True)
class Unconstrained:
    """C = M: mean shift as it was (MSF)."""

    k: int = 5
    second: ClassVar[None] = None

    def __post_init__(self) -> None:
        check_whole(self, 1, "k")

    @torch.no_grad()
    def __call__(self, bank: Bank, positions: Tensor) -> Positives:
        return _nearest(_with_own(_similarity(bank, positions), positions), self.k)


@dataclass(frozen=True, kw_only=True)
class QueryAlone:
    """C holds the query: BYOL, with a loss in one direction only (BYOL-asym). No search."""

    k: ClassVar[int] = 1
    second: ClassVar[None] = None

    def __call__(self, bank: Bank, positions: Tensor) -> Positives:
        return Positives(positions[:, None], torch.ones_like(positions[:, None], dtype=torch.bool))


@dataclass(frozen=True, kw_only=True)
class PreviousEpoch:
    """C holds the k' nearest of w in M', embeddings of one epoch before (CMSF_self, 2.1.3.1, Figure 2.3).

    A query without w, as in the first epoch, stands alone: nothing says what is near it.
    """

    k: int = 5
    k_prime: int = 5
    second: ClassVar[Second] = "previous"

    def __post_init__(self) -> None:
        check_whole(self, 1, "k", "k_prime")
        if self.k_prime < self.k:
            raise EffbookError(f"k' = {self.k_prime} is smaller than k = {self.k}", "choose k' of at least k")

    @torch.no_grad()
    def __call__(self, bank: Bank, positions: Tensor) -> Positives:
        known = bank.known[: bank.filled]
        similarity = bank.second[positions] @ bank.second[: bank.filled].T  # [B, filled] of w in M'
        if not known.all():  # in the first two epochs, and for images that a dropped batch has kept out
            known = known.to(similarity.device)
            similarity.masked_fill_(~(known[positions, None] & known), -math.inf)
        allowed = _nearest(_with_own(similarity, positions), self.k_prime)  # C
        if self.k_prime == self.k:
            return allowed  # all are used, so their order in M has no part
        among = _with_own(_similarity(bank, positions), positions).gather(1, allowed.positions)  # of u in M
        chosen = _nearest(among.masked_fill(~allowed.mask, -math.inf), self.k)
        return Positives(allowed.positions.gather(1, chosen.positions), chosen.mask)


@dataclass(frozen=True, kw_only=True)
class ThirdView(PreviousEpoch):
    """`PreviousEpoch` with M' of a third view, embedded in the same step (2.1.3.1: similar, and slower)."""

    second: ClassVar[Second] = "third"


@dataclass(frozen=True, kw_only=True)
class OtherModality(PreviousEpoch):
    """C holds the k' nearest in the bank M' of another modality, which a frozen network embeds (A.1.2)."""

    k_prime: int = 10
    second: ClassVar[Second] = "other"


@dataclass(frozen=True, kw_only=True)
class SameLabel:
    """C holds the entries that bear the query's label (CMSF_sup, 2.1.3.2): top-k, or with k None top-all.

    A class with fewer than k entries gives fewer positives, never other classes. A query without a label (-1) stands
    alone. Without `target_included` the query is no positive; its nearest neighbours are still (Table A.10 d).
    """

    k: int | None = 10
    target_included: bool = True
    second: ClassVar[None] = None

    def __post_init__(self) -> None:
        if self.k is not None:
            check_whole(self, 1, "k")
        check_flags(self, "target_included")

    @torch.no_grad()
    def __call__(self, bank: Bank, positions: Tensor) -> Positives:
        barred = _of_another_label(bank, positions)
        barred.scatter_(1, positions[:, None], not self.target_included)
        if self.k is None:
            return Positives(None, ~barred)
        similarity = _similarity(bank, positions)
        if self.target_included:
            _with_own(similarity, positions)
        return _nearest(similarity.masked_fill_(barred, -math.inf), self.k)


@dataclass(frozen=True, kw_only=True)
class ConfidentPseudoLabel:
    """C holds the entries of the query's label or pseudo-label; all of M where it has none (CMSF_semi, 2.1.3.3).

    What the bank takes as labels comes from `labels`.
    """

    k: int = 10
    threshold: float = 0.85
    second: ClassVar[None] = None

    def __post_init__(self) -> None:
        check_whole(self, 1, "k")
        check_real(self, 0, "threshold", most=1)

    def labels(self, probabilities: Tensor, truth: Tensor) -> Tensor:
        """The true label [B] where there is one, else the likeliest of [B, C] if it is above the threshold, else -1."""
        confidence, guess = probabilities.max(dim=1)
        guess = guess.masked_fill(confidence < self.threshold, -1)
        return torch.where(truth >= 0, truth, guess)

    @torch.no_grad()
    def __call__(self, bank: Bank, positions: Tensor) -> Positives:
        barred = _of_another_label(bank, positions)
        barred[bank.label[positions] < 0] = False
        similarity = _similarity(bank, positions).masked_fill_(barred, -math.inf)
        return _nearest(_with_own(similarity, positions), self.k)


def _similarity(bank: Bank, positions: Tensor) -> Tensor:
    """Cosine similarity [B, filled] of the queries u to what is real in M: one matrix product."""
    return bank.embeddings[positions] @ bank.embeddings[: bank.filled].T


def _of_another_label(bank: Bank, positions: Tensor) -> Tensor:
    """Which entries do not bear the query's label, [B, filled]: all where it has none. Passes over it are dear: one."""
    own = bank.label[positions].int()
    return own.masked_fill(own < 0, -2)[:, None] != bank.label[: bank.filled].int()


def _with_own(similarity: Tensor, positions: Tensor) -> Tensor:
    """Put each query first among its neighbours, also where another entry equals it but for rounding; in place."""
    return similarity.scatter_(1, positions[:, None], math.inf)


def _nearest(similarity: Tensor, k: int) -> Positives:
    """The k most similar entries of each row, fewer where fewer are real; -inf never counts."""
    values, positions = similarity.topk(min(k, similarity.shape[1]), dim=1)
    return Positives(positions, values > -math.inf)
