"""The constraints of mean shift: which entries of the bank may be positives of a query (section 2.1.3).

Each is an object that is called with the bank and the positions [B] of the queries in it: a batch enters the bank
before the search, so the bank holds u, w and the label of every query, and the query is its own first neighbour.
A new constraint is any object with the two members of `Constraint`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from effbook.errors import EffbookError
from effbook.training.bank import Bank
from effbook.training.settings import check_flags, check_real, check_whole

Second = Literal["previous", "third", "other"]  # M' holds: the previous epoch, a third view, another modality
OUT = 4.0  # cosines lie between -1 and 1: what loses so much comes after all that counts
TILE = 8192  # entries that are searched at once: few enough that a batch's similarities stay in a processor's cache


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
        return _nearest(bank.embeddings[: bank.filled], positions, self.k)


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
        penalty, known = None, bank.known[: bank.filled]
        if not known.all():  # in the first two epochs, and for images that a dropped batch has kept out
            known = known.to(positions.device)

            def penalty(tile: slice) -> Tensor:
                return OUT * ~(known[positions, None] & known[tile])

        allowed = _nearest(bank.second[: bank.filled], positions, self.k_prime, penalty)  # C, by w in M'
        if self.k_prime == self.k:
            return allowed  # all are used, so their order in M has no part
        among = torch.einsum("bd,bkd->bk", bank.embeddings[positions], bank.embeddings[allowed.positions])  # u in M
        among[:, 0] = math.inf  # the query, which stays the first
        values, chosen = among.masked_fill_(~allowed.mask, -math.inf).topk(min(self.k, among.shape[1]), dim=1)
        return Positives(allowed.positions.gather(1, chosen), values > -math.inf)


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
        if self.k is None:
            mask = _label_penalty(bank, positions, slice(bank.filled)) == 0
            return Positives(None, mask.scatter_(1, positions[:, None], self.target_included))
        more = 0 if self.target_included else 1
        found = _nearest(
            bank.embeddings[: bank.filled], positions, self.k + more, partial(_label_penalty, bank, positions)
        )
        return Positives(found.positions[:, more:], found.mask[:, more:])


@dataclass(frozen=True, kw_only=True)
class ConfidentPseudoLabel:
    """C holds the entries of the query's label or pseudo-label; all of M where it has none (CMSF_semi, 2.1.3.3).

    What the bank takes as labels comes from `PseudoLabels`: with the threshold, which a guess must be above.
    """

    k: int = 10
    threshold: float = 0.85
    second: ClassVar[None] = None

    def __post_init__(self) -> None:
        check_whole(self, 1, "k")
        check_real(self, 0, "threshold", most=1)

    @torch.no_grad()
    def __call__(self, bank: Bank, positions: Tensor) -> Positives:
        known = (bank.label[positions, None] >= 0).float()  # [B, 1]

        def penalty(tile: slice) -> Tensor:
            return _label_penalty(bank, positions, tile).mul_(known)

        return _nearest(bank.embeddings[: bank.filled], positions, self.k, penalty)


def _nearest(entries: Tensor, positions: Tensor, k: int, penalty: Callable[[slice], Tensor] | None = None) -> Positives:
    """Each query first, then the k - 1 of the entries [filled, D] most similar to it, fewer where fewer may be.

    The query is first also where another entry equals it but for rounding. `penalty` gives for a slice of the entries
    what their cosines lose, [B, slice]: nothing, or at least OUT. All cosines at once, [B, filled], are never formed.
    """
    queries, own = entries[positions], positions[:, None]
    values, places = [torch.full_like(queries[:, :1], math.inf)], [own]
    for start in range(0, len(entries), TILE):
        tile = slice(start, min(start + TILE, len(entries)))
        similarity = queries @ entries[tile].T  # [B, tile]
        if penalty is not None:
            similarity.sub_(penalty(tile))
        value, place = similarity.topk(min(k, similarity.shape[1]), dim=1)
        place += start
        values.append(value.masked_fill_(place == own, -math.inf))  # the query is there already
        places.append(place)
    best, order = torch.cat(values, dim=1).topk(min(k, len(entries)), dim=1)
    return Positives(torch.cat(places, dim=1).gather(1, order), best > -OUT / 2)


def _label_penalty(bank: Bank, positions: Tensor, tile: slice) -> Tensor:
    """What entries of a slice of M lose that do not bear the query's label, [B, slice]: all where it has none.

    Passes over so many numbers are dear. These are of floats, which a processor takes many at a time, and exact for
    labels below 2^24.
    """
    own = bank.label[positions]
    own = own.masked_fill(own < 0, -2).float()[:, None]
    return (OUT * own - OUT * bank.label[tile].float()).abs_()
