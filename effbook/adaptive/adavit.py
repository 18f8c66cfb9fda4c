"""AdaViT: a ViT that decides before each block which patches, heads and sub-blocks that block uses (4.1.3.2).

A patch that a block leaves out goes round it unchanged and is judged anew by the next block. The prefix (class token
and registers) is always used.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from effbook.adaptive.packing import pack, packed_attention, unpack
from effbook.adaptive.victim import Bound, DecisionTrace, Execution, Outcome, check_run
from effbook.adaptive.vit import (
    channels,
    check_vit,
    class_logits,
    embed,
    normalised,
    patch_tokens,
    queries_keys_values,
)
from effbook.errors import EffbookError
from effbook.evaluate.cost import VitShape, vit_macs
from effbook.training.settings import check_real


@dataclass(frozen=True, kw_only=True)
class AdaViTConfig:
    """How decisions are made, and what share of each kind is to be kept.

    Raises EffbookError where a value is impossible. Source: 4.1.3.2; what it doesn't print is ours and marked so.
    """

    patch_target: float = 0.7  # gamma_p, the share of patches to keep; all three targets are ours
    head_target: float = 0.7  # gamma_h
    block_target: float = 0.7  # gamma_b, over both sub-blocks of all blocks
    tau: float = 5.0  # temperature of the soft decisions that carry the gradient; released code
    threshold: float = 0.5  # keep where the probability is above
    patch_threshold: float = 0.5  # the same for patches; the released attack takes 0.6
    start: float = 3.0  # the logit of every decision before training: keep, 95 %; ours

    def __post_init__(self) -> None:
        check_real(self, 0, "patch_target", "head_target", "block_target", most=1)
        check_real(self, 0, "threshold", "patch_threshold", most=1)
        check_real(self, 1e-3, "tau")
        check_real(self, -100, "start", most=100)


class DecisionNetwork(nn.Module):
    """A block's three linear layers (Eq. 4.2): its input Z [B, T, D] to logits m [B, N + H + 2].

    A patch is judged by its own token, heads and sub-blocks by the class token, the first of the `prefix` tokens. The
    order in m is patches, heads, attention, MLP. The weights start at 0: every decision begins at the logit `start`.
    """

    def __init__(self, width: int, heads: int, *, prefix: int, start: float) -> None:
        super().__init__()
        self.prefix = prefix
        # without initial weights, which torch would draw from the global random state
        self.patches, self.heads, self.blocks = (skip_init(nn.Linear, width, count) for count in (1, heads, 2))
        for layer in (self.patches, self.heads, self.blocks):
            nn.init.zeros_(layer.weight)
            nn.init.constant_(layer.bias, start)

    def forward(self, z: Tensor) -> Tensor:
        of_class = z[:, 0]
        patches = self.patches(z[:, self.prefix :]).squeeze(-1)  # [B, N]
        return torch.cat([patches, self.heads(of_class), self.blocks(of_class)], dim=1)


def keep(logits: Tensor, threshold: Tensor | float, *, tau: float, generator: torch.Generator | None = None) -> Tensor:
    """Straight-through Gumbel-softmax: logits to decisions of 0 and 1 with the gradient of sigmoid(logits / tau).

    Keep where the probability is above the `threshold`. With a `generator` (of the CPU) the logits get noise first:
    keep and drop each have a Gumbel variable, and only their difference counts, which is logistic.
    """
    if generator is not None:
        uniform = torch.rand(logits.shape, generator=generator, dtype=torch.float64)
        logits = logits + uniform.logit(eps=1e-12).to(logits)
    soft = (logits / tau).sigmoid()
    hard = (logits.sigmoid() > threshold).to(soft.dtype)
    return hard + (soft - soft.detach())  # the bracket is exactly 0, so that M is exactly 0 or 1


def usage_loss(trace: DecisionTrace, *, patches: float, heads: float, blocks: float) -> Tensor:
    """L_usage (Eq. 4.3) of each image [B]: how far the shares kept are from the targets gamma, squared and summed."""
    pairs = ((trace.patches, patches), (trace.heads, heads), (trace.blocks, blocks))
    return sum((kept.flatten(1).mean(dim=1) - target) ** 2 for kept, target in pairs)


class AdaViT(nn.Module):
    """A timm VisionTransformer with a decision network before each block, as a `Victim`.

    Images [B, 3, H, W] in 0..1 are normalised here with `mean` and `std` a channel. Raises EffbookError for a ViT that
    isn't understood or has no class token. Source: 4.1.3.2, Eq. 4.2-4.3.
    """

    def __init__(
        self, vit: nn.Module, *, config: AdaViTConfig, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        check_vit(vit)
        if not vit.has_class_token:
            raise EffbookError("the ViT has no class token, by which AdaViT decides about heads", "make it with one")
        self.vit, self.config, self.shape = vit, config, VitShape.of(vit)
        self.kinds = patches, heads, blocks = (patch_tokens(vit), self.shape.heads, 2)  # decisions a block
        self.networks = nn.ModuleList(
            DecisionNetwork(self.shape.width, heads, prefix=self.shape.prefix_tokens, start=config.start)
            for _ in vit.blocks
        )
        thresholds = torch.tensor([config.patch_threshold] * patches + [config.threshold] * (heads + blocks))
        self.register_buffer("thresholds", thresholds, persistent=False)
        self.register_buffer("mean", channels(mean, "mean"), persistent=False)
        self.register_buffer("std", channels(std, "std"), persistent=False)

    def run(
        self, images: Tensor, execution: Execution = "dropped", *, generator: torch.Generator | None = None
    ) -> Outcome:
        """Answer for images [B, 3, H, W]; with a `generator` (of the CPU) the decisions get Gumbel noise.

        Raises EffbookError for images of another size or range, and for an unknown execution.
        """
        check_run(images, execution, image_px=self.vit.patch_embed.img_size)
        masked = execution == "masked"
        with torch.set_grad_enabled(masked and torch.is_grad_enabled()):
            logits, _, decisions = self._forward(images, masked_block if masked else dropped_block, generator)
        patches, heads, blocks = decisions.split(self.kinds, dim=-1)  # [B, L, N], [B, L, H], [B, L, 2]
        kept, used = patches.detach().bool(), blocks.detach().bool()
        usage = {
            "tokens": kept.sum(dim=-1) + self.shape.prefix_tokens,  # [B, L]
            "kept": kept,
            "heads": heads.detach().bool().sum(dim=-1),
            "attention": used[..., 0],
            "mlp": used[..., 1],
        }
        return Outcome(
            logits=logits,
            macs=self._macs(usage["tokens"], usage["heads"], usage["attention"], usage["mlp"]),
            usage=usage,
            trace=DecisionTrace(patches=patches, heads=heads, blocks=blocks) if masked else None,
        )

    def surrogate(self, images: Tensor) -> Tensor:
        """The share [B] of all MACs that an image takes if each decision counts with its probability of keeping."""
        check_run(images, "masked", image_px=self.vit.patch_embed.img_size)
        _, m, _ = self._forward(images, masked_block, None)
        patches, heads, blocks = m.sigmoid().split(self.kinds, dim=-1)
        macs = self._macs(patches.sum(dim=-1) + self.shape.prefix_tokens, heads.sum(dim=-1), *blocks.unbind(dim=-1))
        return macs / self.bound().high_macs

    def bound(self) -> Bound:
        """The MACs of an image with every decision off, and with every decision on."""
        shape, size = self.shape, (1, self.shape.depth)
        off, on = torch.zeros(size), torch.ones(size)
        return Bound(
            low_macs=self._macs(on * shape.prefix_tokens, off, off, off).item(),
            high_macs=self._macs(on * shape.tokens, on * shape.heads, on, on).item(),
        )

    def _forward(
        self, images: Tensor, execute: Callable[..., Tensor], generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Class logits [B, C], and of all blocks the decisions' logits m and the decisions M [B, L, N + H + 2]."""
        x = embed(self.vit, normalised(images, self.mean, self.std))  # [B, T, D]
        every_m, every_kept = [], []
        for block, network in zip(self.vit.blocks, self.networks, strict=True):
            m = network(x)
            kept = keep(m, self.thresholds, tau=self.config.tau, generator=generator)
            patches, heads, blocks = kept.split(self.kinds, dim=1)
            alive = F.pad(patches, (self.shape.prefix_tokens, 0), value=1.0)  # [B, T]
            x = execute(block, x, alive, heads, *blocks.unbind(dim=1))
            every_m.append(m)
            every_kept.append(kept)
        everything = torch.ones_like(alive, dtype=torch.bool)
        logits = class_logits(self.vit, self.vit.norm(x), everything)
        return logits, torch.stack(every_m, dim=1), torch.stack(every_kept, dim=1)

    def _macs(self, tokens: Tensor, heads: Tensor, attention: Tensor, mlp: Tensor) -> Tensor:
        """MACs [B] of what each block executes [B, L], and of the decision networks."""
        attention = attention * (heads > 0)  # without a head only the output projection's bias is left
        macs = vit_macs(self.shape, tokens, heads=heads, attention=attention, mlp=mlp, final_tokens=self.shape.tokens)
        return macs + self.shape.depth * self.shape.width * sum(self.kinds)


def masked_block(block: nn.Module, x: Tensor, alive: Tensor, heads: Tensor, attention: Tensor, mlp: Tensor) -> Tensor:
    """A block's output [B, T, D] with everything computed and the decisions multiplied in, so that all have gradients.

    x [B, T, D]; decisions of 0 and 1: alive [B, T], heads [B, H], attention [B] and mlp [B].
    """
    q, k, v = (part.transpose(1, 2) for part in queries_keys_values(block, x))  # [B, H, T, d]
    scores = q * block.attn.scale @ k.transpose(-2, -1)  # [B, H, T, T]
    used = alive[:, None, None, :]
    top = scores.masked_fill(used == 0, -torch.inf).amax(dim=-1, keepdim=True).detach()
    weights = used * (scores - top).clamp(max=30).exp()  # the clamp: a dropped key must not overflow
    y = weights / weights.sum(dim=-1, keepdim=True) @ v * heads[:, :, None, None]
    y = block.attn.proj(y.transpose(1, 2).flatten(2))
    x = x + (alive * attention[:, None])[..., None] * block.ls1(y)
    return x + (alive * mlp[:, None])[..., None] * block.ls2(block.mlp(block.norm2(x)))


def dropped_block(block: nn.Module, x: Tensor, alive: Tensor, heads: Tensor, attention: Tensor, mlp: Tensor) -> Tensor:
    """`masked_block` with only what is kept computed: the tokens of all images packed, each head for those it has."""
    x, alive, heads, attention, mlp = x.clone(), alive.bool(), heads.bool(), attention.bool(), mlp.bool()
    rows = alive & attention[:, None]  # [B, T]
    if rows.any():
        tokens, counts = pack(x, rows)
        x[rows] = tokens + block.ls1(_attention(block, tokens, counts, heads))
    rows = alive & mlp[:, None]
    if rows.any():
        tokens, _ = pack(x, rows)
        x[rows] = tokens + block.ls2(block.mlp(block.norm2(tokens)))
    return x


def _attention(block: nn.Module, tokens: Tensor, counts: Tensor, heads: Tensor) -> Tensor:
    """Attention over packed tokens [S, D], `counts` [B] an image, with each image's `heads` [B, H] alone; [S, D]."""
    attn = block.attn
    used = heads.repeat_interleave(counts, dim=0)  # [S, H]
    y = torch.zeros_like(tokens) + (0 if attn.proj.bias is None else attn.proj.bias)
    if not used.any():
        return y
    some = used.any(dim=1)
    z = unpack(block.norm1(tokens[some]), some)
    places = [one.nonzero()[:, 0] for one in used.T]  # for each head its tokens' places in S, [S_h]
    weights = attn.qkv.weight.unflatten(0, (3, attn.num_heads, -1)).transpose(0, 1).flatten(1, 2)  # [H, 3 d, D]
    biases = [None] * len(places)
    if attn.qkv.bias is not None:
        biases = attn.qkv.bias.unflatten(0, (3, attn.num_heads, -1)).transpose(0, 1).flatten(1)  # [H, 3 d]
    projected = [F.linear(z[at], weight, bias) for at, weight, bias in zip(places, weights, biases, strict=True)]
    q, k, v = torch.cat(projected).unflatten(-1, (3, 1, -1)).unbind(1)  # [sum of S_h, 1, d]
    pairs = torch.cat([counts[one & (counts > 0)] for one in heads.T])  # a head of an image is a sequence of its own
    attended = packed_attention(attn.q_norm(q), attn.k_norm(k), v, pairs)[:, 0]
    parts = attended.split([len(at) for at in places])
    for at, part, weight in zip(places, parts, attn.proj.weight.chunk(attn.num_heads, dim=1), strict=True):
        y.index_add_(0, at, F.linear(part, weight))
    return y
