"""NOLA's A and B beside what peft's users do to a model: compile it, and shard it with FSDP."""

from typing import Any

import torch
from torch import nn

from effbook.nola.factors import Factors, SharedBasis


class PeftFactors(Factors):
    """`Factors` with what peft's users may do to a layer: compile it, shard it."""

    # A and B are made outside of a compiled graph: to trace how a basis is drawn would fail, or draw it in every step
    forward = torch.compiler.disable(Factors.forward)

    @property
    def weight(self) -> nn.Parameter:
        """peft's wrapping policy for FSDP knows a layer that trains by its weight."""
        return self.alpha


class PeftSharedBasis(SharedBasis):
    """`SharedBasis` that leaves every layer to itself where FSDP gathers coefficients only as a layer begins."""

    @torch.compiler.disable
    def _begin(self, model: nn.Module, *args: Any) -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            from torch.distributed.fsdp import FullyShardedDataParallel
            from torch.distributed.tensor import DTensor

            sharded = any(isinstance(m, FullyShardedDataParallel) for m in model.modules())
            if sharded or any(isinstance(m.alpha, DTensor) for m in self.members):
                self._ready, self._running = {}, False
                return
        super()._begin(model, *args)

    _end = torch.compiler.disable(SharedBasis._end)
