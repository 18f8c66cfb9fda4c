"""ATS: tokens are sampled by the class token's attention to them (4.1.3.2, Eq. 4.4; appendix C.4)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from effbook.adaptive.packing import masked_attention, packed_attention, unpack
from effbook.adaptive.victim import Bound, Execution, Outcome, SamplingTrace, check_run
from effbook.adaptive.vit import after_attention, channels, check_vit, class_logits, embed, normalised, patch_tokens
from effbook.adaptive.vit import queries_keys_values as qkv
from effbook.errors import EffbookError
from effbook.evaluate.cost import VitShape, vit_macs
from effbook.training.settings import check_whole


@dataclass(frozen=True, kw_only=True)
class AtsConfig:
    """Where ATS samples, by default the dissertation's layers, counted from 0, and how often.

    `samples` K are drawn at each stage, and duplicates count once; None: as many as an image has patches, which is
    196 of at most 197 tokens at 224 px. Without any block this is the plain ViT. Raises EffbookError where a value is
    impossible.
    """

    blocks: tuple[int, ...] = (3, 4, 5, 6, 7, 8, 9)
    samples: int | None = None

    def __post_init__(self) -> None:
        if not all(type(b) is int and b >= 0 for b in self.blocks) or list(self.blocks) != sorted(set(self.blocks)):
            raise EffbookError(f"the blocks are {self.blocks!r}", "give them as whole numbers from 0, rising")
        if self.samples is not None:
            check_whole(self, 2, "samples")


class ATS(nn.Module):
    """A timm VisionTransformer that samples its tokens as ATS does, as a `Victim`; it adds no parameter.

    At a stage all tokens that arrive are keys and values; those sampled go on. The two executions differ by rounding
    only: a sample within rounding of the middle between two tokens may go either way. Raises EffbookError for a ViT
    of an unknown kind, without a class token, without the blocks named, or with a single patch.
    Source: 4.1.3.2, "Attacking ATS".
    """

    def __init__(self, vit: nn.Module, *, config: AtsConfig, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        check_vit(vit)
        if not vit.has_class_token:
            raise EffbookError("ATS samples by the class token's attention and the ViT has none", "take one with it")
        if config.blocks and config.blocks[-1] >= len(vit.blocks):
            raise EffbookError(f"the blocks are {config.blocks} of {len(vit.blocks)}", "count them from 0")
        if patch_tokens(vit) < 2:
            raise EffbookError("an image of one patch leaves nothing to sample", "take smaller patches")
        self.vit, self.config, self.shape = vit, config, VitShape.of(vit)
        self.samples = config.samples or patch_tokens(vit)
        self.register_buffer("mean", channels(mean, "mean"), persistent=False)
        self.register_buffer("std", channels(std, "std"), persistent=False)

    def run(self, images: Tensor, execution: Execution = "dropped") -> Outcome:
        """See `Victim.run`. Raises EffbookError for images of another size, type or range."""
        check_run(images, execution, image_px=self.vit.patch_embed.img_size)
        return self._masked(images) if execution == "masked" else self._dropped(images)

    def surrogate(self, images: Tensor) -> Tensor:
        """The expected count of patch tokens as a share of all, mean over the stages, [B]. Without stages it raises."""
        if not self.config.blocks:
            raise EffbookError("an ATS without stages costs the same for any image", "name the blocks that sample")
        return self.run(images, "masked").trace.count_expected.mean(1) / patch_tokens(self.vit)

    def bound(self) -> Bound:
        """At the least one patch token passes the first stage, at the most all but the one of the lowest score."""
        patches, first = patch_tokens(self.vit), min(self.config.blocks, default=self.shape.depth)
        tokens = torch.full((2, self.shape.depth), self.shape.tokens)
        tokens[0, first:] = self.shape.prefix_tokens + 1
        tokens[1, first:] = self.shape.prefix_tokens + min(patches - 1, self.samples)
        low, high = self._macs(tokens).tolist()
        return Bound(low_macs=low, high_macs=high)

    def _masked(self, images: Tensor) -> Outcome:
        tokens = embed(self.vit, normalised(images, self.mean, self.std))  # [B, P + N, D]
        alive = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        kept, stages = [], []
        for number, block in enumerate(self.vit.blocks):
            q, k, v = qkv(block, tokens)  # [B, P + N, H, d]
            attended = masked_attention(q, k, v, alive)
            if number in self.config.blocks:
                products = (q[:, :1] * k).sum(-1)  # [B, P + N, H], Q K^T of the class token
                attention, scores = self._scores(products * block.attn.scale, v.flatten(2).norm(dim=2), alive)
                stages.append((scores, (self.samples * scores).clamp_max(1).sum(1), attention))
                alive = self._sampled(scores.detach(), alive)
            tokens = after_attention(block, tokens, attended)
            kept.append(alive)
        named = zip(("scores", "count_expected", "attention"), zip(*stages, strict=True), strict=True)
        trace = SamplingTrace(**{name: torch.stack(parts, 1) for name, parts in named}) if stages else None
        logits = class_logits(self.vit, self.vit.norm(tokens), alive)
        return self._outcome(logits, torch.stack(kept, 1), trace)

    @torch.no_grad()
    def _dropped(self, images: Tensor) -> Outcome:
        tokens = embed(self.vit, normalised(images, self.mean, self.std))
        alive = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        packed, kept = tokens.flatten(0, 1), []  # [T, D], T the tokens alive in all images
        for number, block in enumerate(self.vit.blocks):
            counts, stays = alive.sum(1), None
            q, k, v = qkv(block, packed)  # [T, H, d]
            if number in self.config.blocks:
                class_q = q[counts.cumsum(0) - counts].repeat_interleave(counts, 0)  # each token's image's
                products = torch.einsum("thd,thd->th", class_q, k) * block.attn.scale
                lengths = v.flatten(1).norm(dim=1)
                _, scores = self._scores(unpack(products, alive), unpack(lengths, alive), alive)
                sampled = self._sampled(scores, alive)
                stays, alive = sampled[alive], sampled
                q, packed = q[stays], packed[stays]
            attended = packed_attention(q, k, v, counts, alive.sum(1))
            packed = after_attention(block, packed, attended)
            kept.append(alive)
        logits = class_logits(self.vit, unpack(self.vit.norm(packed), alive), alive)
        return self._outcome(logits, torch.stack(kept, 1), None)

    def _scores(self, products: Tensor, lengths: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
        """The class token's attention to the patches [B, H, N], and their scores S of Eq. 4.4, [B, N].

        From its products with all keys, [B, P + N, H], and the lengths of their values, [B, P + N].
        """
        attention = products.masked_fill(~alive[..., None], -math.inf).softmax(1)  # A_1, [B, P + N, H]
        first = self.vit.num_prefix_tokens
        weighted = (attention.sum(2) * lengths)[:, first:] * alive[:, first:]  # summed over heads
        return attention[:, first:].transpose(1, 2), weighted / weighted.sum(1, keepdim=True)

    def _sampled(self, scores: Tensor, alive: Tensor) -> Tensor:
        """Which tokens [B, P + N] are alive after inverse-transform sampling by the patches' scores [B, N]."""
        first = self.vit.num_prefix_tokens
        return torch.cat([alive[:, :first], inverse_transform(scores, alive[:, first:], samples=self.samples)], 1)

    def _outcome(self, logits: Tensor, kept: Tensor, trace: SamplingTrace | None) -> Outcome:
        tokens = kept.sum(2)
        usage = {"tokens": tokens, "kept": kept[:, :, self.vit.num_prefix_tokens :]}
        return Outcome(logits=logits, macs=self._macs(tokens), usage=usage, trace=trace)

    def _macs(self, tokens: Tensor) -> Tensor:
        """Of tokens [B, L] that leave each block's attention: more arrive at a stage, and its class row runs twice."""
        arriving = torch.cat([torch.full_like(tokens[:, :1], self.shape.tokens), tokens[:, :-1]], 1)
        twice = torch.tensor([number in self.config.blocks for number in range(self.shape.depth)]).to(tokens)
        return vit_macs(self.shape, tokens, tokens_in=arriving, score_rows=tokens + twice)


def inverse_transform(scores: Tensor, alive: Tensor, *, samples: int) -> Tensor:
    """Sample patches by scores [B, N] of sum 1: K fixed levels in the cumulative distribution, each takes the nearest.

    The scores rise in it. Its minimum is subtracted, so that the lowest token goes, as long as an image has all its
    tokens, `alive` [B, N]; from then on the minimum is 0, as it is for an image padded with lost tokens. The levels
    go in equal steps from its smallest value above 0 to 1. Gives [B, N] bool, a subset of `alive`.
    """
    ordered, order = scores.double().masked_fill(~alive, -1).sort(1)  # the lost first
    lost = ordered < 0
    cdf = ordered.clamp_min(0).cumsum(1)
    lowest = cdf[:, :1] * alive.all(1, keepdim=True)
    cdf = (cdf - lowest) / (cdf[:, -1:] - lowest)
    cdf = cdf.masked_fill(lost, -math.inf)
    first = cdf.where(cdf > 0, math.inf).amin(1, keepdim=True)
    levels = first + (1 - first) * torch.linspace(0, 1, samples, dtype=cdf.dtype, device=cdf.device)  # [B, K]
    above = torch.searchsorted(cdf, levels).clamp_max(cdf.shape[1] - 1)
    below = (above - 1).clamp_min(0)
    nearest = below.where(levels - cdf.gather(1, below) <= cdf.gather(1, above) - levels, above)
    return torch.zeros_like(alive).scatter(1, order.gather(1, nearest), True)


__all__ = ["ATS", "AtsConfig", "inverse_transform"]
