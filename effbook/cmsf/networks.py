"""The online network, which is trained, and the target network, its slowly moving average (2.1.3)."""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effbook.cmsf.heads import predictor, projector
from effbook.errors import EffbookError
from effbook.training.distributed import gather, own_rows, world_size
from effbook.training.precision import in_precision
from effbook.training.seeds import generator


class Networks(nn.Module):
    """online: predictor(projector(encoder(x))); target: projector(encoder(x)), a copy without gradients.

    The encoder gives [B, dim]; either network ends in [B, dim / 4] of unit length, in float32. Other heads can be
    given; the target starts as a copy of the online network. `sync_batch_norm`: batch statistics over all processes,
    on GPUs; else the target's batches are shuffled between the processes. `precision` "bfloat16" uses autocast.
    """

    def __init__(
        self,
        encoder: nn.Module,
        dim: int,
        *,
        seed: int = 0,
        projector_head: nn.Module | None = None,
        predictor_head: nn.Module | None = None,
        sync_batch_norm: bool = False,
        precision: str = "float32",
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector(dim, seed=seed) if projector_head is None else projector_head
        self.predictor = predictor(dim, seed=seed) if predictor_head is None else predictor_head
        if sync_batch_norm:
            for name in ("encoder", "projector", "predictor"):
                setattr(self, name, nn.SyncBatchNorm.convert_sync_batchnorm(getattr(self, name)))
        self.target_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        self.target_projector = copy.deepcopy(self.projector).requires_grad_(False)
        self.precision, self.sync_batch_norm = precision, sync_batch_norm
        device = next((p.device for p in encoder.parameters()), torch.device("cpu"))
        self.to(device)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.projector.parameters()).device

    def trained(self) -> list[nn.Parameter]:
        """What the optimiser gets: the online network's parameters that want a gradient."""
        return [p for p in self.parameters() if p.requires_grad]

    def online(self, crops: Sequence[Tensor]) -> Tensor:
        """v [crops, B, D] of several views [B, ...] of one batch; sizes may differ between views."""
        return torch.stack([self._normalised(x, self.encoder, self.projector, self.predictor) for x in crops])

    @torch.no_grad()
    def target(self, view: Tensor, *, shuffle_key: tuple[int, ...] = (0,)) -> Tensor:
        """u [B, D] of one view, in training mode: batch norm uses the batch's own statistics.

        With several processes the images change places before it, by a draw from `shuffle_key`, and u after it: else a
        query and its target would share their batch's statistics, which gives the answer away.
        """
        if world_size() == 1 or self.sync_batch_norm:
            return self._normalised(view, self.target_encoder, self.target_projector)
        order = torch.randperm(len(view) * world_size(), generator=generator(*shuffle_key)).to(view.device)
        u = gather(self._normalised(own_rows(gather(view)[order]), self.target_encoder, self.target_projector))
        return own_rows(u[order.argsort()])

    @torch.no_grad()
    def update_target(self, momentum: float) -> None:
        """theta_f <- m theta_f + (1 - m) theta_g, parameters only: the target's BN buffers are its own."""
        online = [*self.encoder.parameters(), *self.projector.parameters()]
        target = [*self.target_encoder.parameters(), *self.target_projector.parameters()]
        torch._foreach_lerp_(target, online, 1 - momentum)

    def _normalised(self, x: Tensor, encoder: nn.Module, *heads: nn.Module) -> Tensor:
        with in_precision(self.precision, x):
            x = encoder(x)
            if x.ndim != 2:
                raise EffbookError(
                    f"the encoder gives {tuple(x.shape)}", "end it with pooling, so that it gives [B, d]"
                )
            for head in heads:
                x = head(x)
        return F.normalize(x.float(), dim=1)
