"""A-ViT: a token halts once its halting scores add up to one (4.1.3.2, Eq. 4.1; appendix C.4)."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effbook.adaptive.packing import masked_attention, packed_attention
from effbook.adaptive.victim import Bound, Execution, HaltingTrace, Outcome, check_run
from effbook.adaptive.vit import after_attention, channels, check_vit, class_logits, embed, normalised
from effbook.adaptive.vit import queries_keys_values as qkv
from effbook.errors import EffbookError
from effbook.evaluate.cost import NORM, VitShape, vit_macs
from effbook.training.settings import check_choice, check_real


@dataclass(frozen=True, kw_only=True)
class AViTConfig:
    """How A-ViT halts.

    `gate` "channel": a score is sigmoid(scale x first channel - centre), without parameters; scale and centre are 10
    and 30 for the published tiny model, 10 and 75 for the small one. "linear": sigmoid(w . LayerNorm(token) + shift),
    w trained and shared, the shift trained for each block and starting at `first_shift`. `readout` "weighted": a token
    leaves as the mean of its states, each weighted by its score, and class and register tokens halt like others.
    "last": it leaves as it was when it halted, and class and register tokens never halt.
    Raises EffbookError where a value is impossible.
    """

    gate: Literal["channel", "linear"] = "channel"
    scale: float = 10.0
    centre: float = 30.0
    first_shift: float = -4.0
    epsilon: float = 0.01
    readout: Literal["weighted", "last"] = "weighted"

    def __post_init__(self) -> None:
        check_choice(self, "gate", ("channel", "linear"))
        check_choice(self, "readout", ("weighted", "last"))
        check_real(self, 0, "scale")
        check_real(self, -1e6, "centre", "first_shift")
        check_real(self, 0, "epsilon", most=0.5)


class AViT(nn.Module):
    """A timm VisionTransformer with A-ViT's halting, as a `Victim`.

    The two executions differ by rounding only: a score within rounding of the threshold may halt in but one of them.
    Raises EffbookError for a ViT of an unknown kind. Source: 4.1.3.2, "Attacking A-ViT".
    """

    def __init__(self, vit: nn.Module, *, config: AViTConfig, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        check_vit(vit)
        self.vit, self.config, self.shape = vit, config, VitShape.of(vit)
        self.register_buffer("mean", channels(mean, "mean"), persistent=False)
        self.register_buffer("std", channels(std, "std"), persistent=False)
        if config.gate == "linear":
            self.gate = nn.Parameter(torch.zeros(1, self.shape.width))
            shifts = torch.full((self.shape.depth - 1,), float(config.first_shift))  # the last block needs none
            self.shift = nn.Parameter(shifts)

    def run(self, images: Tensor, execution: Execution = "dropped") -> Outcome:
        """See `Victim.run`. Raises EffbookError for images of another size, type or range."""
        check_run(images, execution, image_px=self.vit.patch_embed.img_size)
        return self._masked(images) if execution == "masked" else self._dropped(images)

    def surrogate(self, images: Tensor) -> Tensor:
        """The mean of N_k + r_k over the patch tokens, as a share of the L + 1 that it can reach, [B]."""
        return self.run(images, "masked").trace.ponder.mean(1) / (self.shape.depth + 1)

    def bound(self) -> Bound:
        """At the least all patch tokens halt after the first block, at the most none before the last."""
        kept = torch.full((2, self.shape.depth), self.shape.tokens)
        kept[0, 1:] = 0 if self.config.readout == "weighted" else self.shape.prefix_tokens
        low, high = self._macs(kept).tolist()
        return Bound(low_macs=low, high_macs=high)

    def _scores(self, block: int, tokens: Tensor, halting: Tensor) -> Tensor:
        """h of tokens [..., D] after a block, [...]; 1 in the last block, before it 0 for those never `halting`."""
        if block == self.shape.depth - 1:
            return torch.ones_like(tokens[..., 0])
        if self.config.gate == "channel":
            gated = self.config.scale * tokens[..., 0] - self.config.centre
        else:
            normed = F.layer_norm(tokens, (self.shape.width,))
            gated = F.linear(normed, self.gate).squeeze(-1) + self.shift[block]
        return gated.sigmoid() * halting

    def _halting(self, device: torch.device) -> Tensor:
        """Which tokens of an image can halt before the last block, [P + N] bool."""
        place = torch.arange(self.shape.tokens, device=device)
        return place >= (0 if self.config.readout == "weighted" else self.shape.prefix_tokens)

    def _masked(self, images: Tensor) -> Outcome:
        tokens = embed(self.vit, normalised(images, self.mean, self.std))  # [B, P + N, D]
        halting = self._halting(images.device)
        alive = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        total, ponder, output = torch.zeros_like(tokens[..., 0]), 0, 0
        kept, scores = [], []
        for number, block in enumerate(self.vit.blocks):
            kept.append(alive)
            after = after_attention(block, tokens, masked_attention(*qkv(block, tokens), alive))
            tokens = after.where(alive[..., None], tokens)
            score = self._scores(number, tokens, halting) * alive  # h_k^l
            halts = alive & (total + score > 1 - self.config.epsilon)  # here l = N_k
            weight = (1 - total).where(halts, score)  # at N_k the remainder r_k, before it h
            ponder = ponder + alive + weight * halts  # N_k + r_k of Eq. 4.1
            output = output + weight[..., None] * tokens
            scores.append(score)
            total, alive = total + score, alive & ~halts
        first = self.vit.num_prefix_tokens
        trace = HaltingTrace(scores=torch.stack(scores, 1)[:, :, first:], ponder=ponder[:, first:])
        return self._outcome(output if self.config.readout == "weighted" else tokens, torch.stack(kept, 1), trace)

    @torch.no_grad()
    def _dropped(self, images: Tensor) -> Outcome:
        tokens = embed(self.vit, normalised(images, self.mean, self.std))
        (n_images, n_tokens), width = tokens.shape[:2], tokens.shape[2]
        packed = tokens.flatten(0, 1)  # [T, D], T the tokens alive in all images
        place = torch.arange(len(packed), device=packed.device)  # where each was, in 0..B (P + N)
        total, output = torch.zeros_like(packed[:, 0]), torch.zeros_like(packed)
        read = self.vit.global_pool != "token"  # else of all outputs only the class token's is read
        halting, kept = self._halting(images.device), []
        for number, block in enumerate(self.vit.blocks):
            alive = torch.zeros(len(output), dtype=torch.bool, device=packed.device)
            alive[place] = True
            kept.append(alive.view(n_images, n_tokens))
            attended = packed_attention(*qkv(block, packed), kept[-1].sum(1))
            packed = after_attention(block, packed, attended)
            score = self._scores(number, packed, halting[place % n_tokens])
            halts = total + score > 1 - self.config.epsilon
            weight = (1 - total).where(halts, score) if self.config.readout == "weighted" else halts.to(total.dtype)
            leaves = halts if self.config.readout == "last" else torch.ones_like(halts)
            if not read:
                leaves = leaves & (place % n_tokens == 0)
            output.index_add_(0, place[leaves], weight[leaves, None] * packed[leaves])
            if halts.any():
                packed, place, total, score = (part[~halts] for part in (packed, place, total, score))
            total = total + score
        return self._outcome(output.view(n_images, n_tokens, width), torch.stack(kept, 1), None)

    def _outcome(self, output: Tensor, kept: Tensor, trace: HaltingTrace | None) -> Outcome:
        """From what tokens left with, [B, P + N, D], halted ones too, and who was alive in a block, [B, L, P + N]."""
        logits = class_logits(self.vit, self.vit.norm(output), torch.ones_like(kept[:, 0]))
        tokens = kept.sum(2)
        usage = {"tokens": tokens, "kept": kept[:, :, self.vit.num_prefix_tokens :]}
        return Outcome(logits=logits, macs=self._macs(tokens), usage=usage, trace=trace)

    def _macs(self, tokens: Tensor) -> Tensor:
        """Of executed tokens [B, L]: the ViT's, with the last norm on all that left, and a linear gate's own."""
        macs = vit_macs(self.shape, tokens, final_tokens=self.shape.tokens)
        if self.config.gate == "linear":
            macs = macs + (NORM + 1) * self.shape.width * tokens[:, :-1].sum(1)
        return macs


def ponder_loss(trace: HaltingTrace) -> Tensor:
    """Eq. 4.1 over the patch tokens, mean over the batch: in 1..L + 1."""
    return trace.ponder.mean()


def distribution_loss(trace: HaltingTrace, *, depth: float = 8.0, deviation: float = 1.0) -> Tensor:
    """KL from a Gaussian over the blocks 1..L to the mean halting scores as a distribution over them.

    The mean is over batch and patch tokens, so that a batch of one is as good as any. Raises EffbookError where the
    Gaussian is impossible. Source: 4.1.3.2, L_distr.
    """
    if not (deviation > 0 and depth > 0):
        raise EffbookError(f"the prior is N({depth}, {deviation})", "give a depth and a deviation above 0")
    mean = trace.scores.mean((0, 2)).clamp_min(1e-6)  # [L]; the logarithm needs some of each
    halting = (mean / mean.sum()).log()
    block = torch.arange(1, len(mean) + 1, device=mean.device, dtype=mean.dtype)
    prior = (-0.5 * ((block - depth) / deviation) ** 2).log_softmax(0)
    return F.kl_div(prior, halting, reduction="sum", log_target=True)  # sum of H (log H - log prior)


__all__ = ["AViT", "AViTConfig", "distribution_loss", "ponder_loss"]
