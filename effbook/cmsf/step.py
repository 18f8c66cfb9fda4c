"""One step of constrained mean shift, in the order of the released code (2.1.3)."""

from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from effbook.cmsf.config import MeanShiftSettings
from effbook.cmsf.constraints import Constraint, Positives, Unconstrained
from effbook.cmsf.loss import mean_shift_loss
from effbook.cmsf.networks import Networks
from effbook.cmsf.previous import EpochCache
from effbook.errors import EffbookError
from effbook.training.bank import Bank
from effbook.training.distributed import from_first, gather, own_rows, rank
from effbook.training.settings import check_bank
from effbook.training.views import Batch


class Found(NamedTuple):
    """What the last step's search found, for whoever records it: positions in the bank [B], and the positives."""

    positions: Tensor
    constrained: Positives
    unconstrained: Positives | None


class MeanShift(nn.Module):
    """Constrained mean shift as a method that `train` takes: networks, bank, cache, and the loss of a batch.

    `images` is the size of the training set, for the previous epoch's cache. `relabel(batch, u)` gives the labels [B]
    that go into the bank in place of the batch's own (pseudo-labels). `other` is the frozen network of `OtherModality`:
    `extra` to [B, D'] of unit length. Raises EffbookError where bank, constraint and inputs do not go together.
    """

    def __init__(
        self,
        networks: Networks,
        constraint: Constraint,
        settings: MeanShiftSettings,
        *,
        images: int,
        relabel: Callable[[Batch, Tensor], Tensor] | None = None,
        other: Callable[[Tensor], Tensor] | None = None,
        other_dim: int | None = None,
    ) -> None:
        super().__init__()
        check_bank(settings.bank_size, k=max(getattr(constraint, "k", None) or 1, getattr(constraint, "k_prime", 1)))
        if (constraint.second == "other") != (other is not None and other_dim is not None):
            raise EffbookError(
                "another modality's network and the constraint do not go together",
                "give `other` and `other_dim` with OtherModality, and only then",
            )
        networks.precision = settings.precision
        self.networks, self.constraint, self.settings = networks, constraint, settings
        self.relabel, self.other = relabel, [other]  # in a list, so that it is neither trained nor saved
        dim = _width(networks)
        second_dim = {None: None, "other": other_dim}.get(constraint.second, dim)
        self.bank = Bank(
            settings.bank_size, dim, second_dim=second_dim, seed=settings.seed, device=networks.device
        )  # the same in all processes
        self.cache = None  # one copy, with the first process
        if constraint.second == "previous":
            self.cache = EpochCache(images if rank() == 0 else 0, dim)
        self.steps = 0
        self.found: Found | None = None

    def trained(self) -> list[nn.Parameter]:
        """What the optimiser gets."""
        return self.networks.trained()

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a batch, to be differentiated; target, bank and cache move on by one step."""
        settings = self.settings
        v = self.networks.online(batch.strong)  # [crops, B, D]
        self.networks.update_target(settings.momentum)
        with torch.no_grad():
            u = self.networks.target(batch.weak, shuffle_key=(settings.seed, self.steps))  # [B, D]
            label = batch.label if self.relabel is None else self.relabel(batch, u)
            own = self._enqueue(batch, u, label)
            constrained, free = self.constraint(self.bank, own), None
            if settings.unconstrained_half:
                free = Unconstrained(k=settings.k)(self.bank, own)
        self.steps += 1
        self.found = Found(own, constrained, free)
        total = mean_shift_loss(v, self.bank, constrained)
        return total if free is None else (total + mean_shift_loss(v, self.bank, free)) / 2

    def _enqueue(self, batch: Batch, u: Tensor, label: Tensor) -> Tensor:
        """Put u, and w beside it, of all processes into the bank; return this process's positions [B]."""
        every, index = gather(u), gather(batch.index)
        second = known = None
        if self.constraint.second == "previous":
            second, known = self._previous(every, index)
        elif self.constraint.second is not None:
            if batch.extra is None:
                raise EffbookError("the batch has no `extra` input", f"{type(self.constraint).__name__} needs one")
            if self.constraint.second == "other":
                second = gather(self.other[0](batch.extra))
            else:
                second = gather(self.networks.target(batch.extra, shuffle_key=(self.settings.seed, self.steps, 3)))
        return own_rows(self.bank.enqueue(every, index, gather(label), second=second, known=known))

    def _previous(self, u: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """The embeddings w of one epoch before, and which are real; the cache takes what is newer."""
        second, known = torch.empty_like(u), torch.zeros(len(u), dtype=torch.bool, device=u.device)
        if rank() == 0:
            second, real = self.cache.read(index, u.device)
            known = real.to(u.device)
            self.cache.write(*(self.bank.oldest(len(u)) if self.settings.cache_from_evicted else (index, u)))
        return from_first(second), from_first(known).cpu()

    def made_with(self) -> dict[str, Any]:
        """What a checkpoint must have been made with to go on from."""
        constraint = repr(self.constraint) if is_dataclass(self.constraint) else type(self.constraint).__name__
        own = asdict(self.settings) | {"constraint": constraint}
        guesser = self.relabel.made_with() if hasattr(self.relabel, "made_with") else type(self.relabel).__name__
        return {f"mean shift's {name}": value for name, value in own.items()} | {"labels": guesser}

    def get_extra_state(self) -> dict[str, Any]:
        """Bank, cache and number of steps, beside the networks' parameters and buffers."""
        cache = None if self.cache is None or rank() else self.cache.state_dict()  # the first process's alone
        return {"bank": self.bank.state_dict(), "cache": cache, "steps": self.steps}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.bank.load_state_dict(state["bank"])
        if self.cache is not None and rank() == 0:
            self.cache.load_state_dict(state["cache"] or {})
        self.steps = state["steps"]


def _width(networks: Networks) -> int:
    """The D of u: the width of the last layer of the projector."""
    return [m for m in networks.projector.modules() if isinstance(m, nn.Linear)][-1].out_features
