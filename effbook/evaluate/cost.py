"""What a vision transformer computes for an image, by closed form and by counting what really runs (4.1.5.1).

The unit is the dissertation's "FLOP": a multiply-accumulate, and 5 for each element that a LayerNorm normalises.
Softmax, activations, biases and sums count nothing. DeiT-Ti, S and B take 1.2584, 4.6083 and 17.583 times 10^9.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from effbook.errors import EffbookError

NORM = 5  # what an element of a LayerNorm counts


@dataclass(frozen=True)
class VitShape:
    """The sizes that determine a ViT's compute; the last four say which LayerNorms it has, by timm's names for them.

    Raises `EffbookError` where a size isn't positive or patches or heads do not divide image or width.
    """

    width: int
    depth: int
    heads: int
    mlp_width: int
    patch_px: int
    image_px: int
    classes: int  # 0: no head
    channels: int = 3
    prefix_tokens: int = 1  # class token and registers
    norm_pre: bool = False  # before the first block
    qk_norm: bool = False  # of queries and keys, over a head's width
    norm: bool = True  # after the last block, of all tokens that are left
    fc_norm: bool = False  # of the pooled token

    def __post_init__(self) -> None:
        sizes = (self.width, self.depth, self.heads, self.mlp_width, self.patch_px, self.image_px, self.channels)
        if min(sizes) < 1 or min(self.classes, self.prefix_tokens) < 0:
            raise EffbookError(f"{self} has a size that is not positive", "give the sizes of a ViT")
        if self.width % self.heads or self.image_px % self.patch_px:
            raise EffbookError(
                f"{self.heads} heads do not divide a width of {self.width}, or patches of {self.patch_px} px an image "
                f"of {self.image_px} px",
                "give sizes that divide",
            )

    @property
    def tokens(self) -> int:
        """Tokens of a whole image, with the prefix."""
        return (self.image_px // self.patch_px) ** 2 + self.prefix_tokens

    @classmethod
    def of(cls, vit: nn.Module) -> Self:
        """The shape of a timm VisionTransformer, on any device (meta, too).

        Raises `EffbookError` for one with layers of which the closed form knows nothing.
        """
        _refuse_unknown(vit)
        block, embed = vit.blocks[0], vit.patch_embed
        return cls(
            width=vit.embed_dim,
            depth=len(vit.blocks),
            heads=block.attn.num_heads,
            mlp_width=block.mlp.fc1.out_features,
            patch_px=embed.patch_size[0],
            image_px=embed.img_size[0],
            classes=vit.head.out_features if isinstance(vit.head, nn.Linear) else 0,
            channels=embed.proj.in_channels,
            prefix_tokens=vit.num_prefix_tokens,
            norm_pre=isinstance(vit.norm_pre, nn.LayerNorm),
            qk_norm=isinstance(block.attn.q_norm, nn.LayerNorm),
            norm=isinstance(vit.norm, nn.LayerNorm),
            fc_norm=isinstance(vit.fc_norm, nn.LayerNorm),
        )


def block_macs(
    shape: VitShape,
    tokens: Tensor,
    *,
    tokens_in: Tensor | None = None,
    score_rows: Tensor | None = None,
    heads: Tensor | None = None,
    attention: Tensor | bool = True,
    mlp: Tensor | bool = True,
) -> Tensor:
    """MACs [...] of one block for one image, float64 and differentiable in all that is given as floats.

    All arguments have one shape [...] or broadcast. `tokens` are those that come out of the attention and go through
    the MLP, `tokens_in` those that entered (None: the same): an ATS block normalises and projects all that enter, and
    continues with what it samples. `score_rows` are the queries that meet all keys (None: all that entered).
    `heads` are those that run (None: all); a dropped head also cuts the output projection's inputs. `attention` and
    `mlp` are 0, 1 or a share; what does not run takes its LayerNorm along.

    Raises `EffbookError` for a count below 0, above the ViT's or not finite.
    """
    n = _checked("tokens", tokens, shape.tokens)
    n_in = n if tokens_in is None else _checked("tokens", tokens_in, shape.tokens)
    rows = n_in if score_rows is None else _checked("rows of scores", score_rows, shape.tokens)
    h = shape.heads if heads is None else _checked("heads", heads, shape.heads)
    attention, mlp = (_checked("shares of a block", share, 1) for share in (attention, mlp))
    inner = shape.width // shape.heads * h  # the width of the heads that run
    projections = inner * shape.width * (3 * n_in + n)  # queries, keys, values; output
    scores = inner * n_in * (rows + n)  # Q K^T; A V
    norms = shape.width * n_in + (2 * inner * n_in if shape.qk_norm else 0)
    return attention * (projections + scores + NORM * norms) + mlp * n * shape.width * (2 * shape.mlp_width + NORM)


def vit_macs(
    shape: VitShape,
    tokens_per_block: Tensor,
    *,
    tokens_in: Tensor | None = None,
    score_rows: Tensor | None = None,
    heads: Tensor | None = None,
    attention: Tensor | bool = True,
    mlp: Tensor | bool = True,
    final_tokens: Tensor | int | None = None,
) -> Tensor:
    """MACs [B] of whole images, float64: patch embedding, blocks, last norm and head.

    `tokens_per_block` [B, L] are the tokens executed, prefix included; the others as in `block_macs`, [B, L] each.
    `final_tokens` [B] reach the last norm (None: as many as left the last block; a victim whose tokens come back gives
    `shape.tokens`). What decides about tokens, heads or blocks is the victim's own, and not in here.

    Raises `EffbookError` for another number of blocks, and as `block_macs` does.
    """
    if tokens_per_block.ndim < 1 or tokens_per_block.shape[-1] != shape.depth:
        raise EffbookError(
            f"Tokens of shape {tuple(tokens_per_block.shape)} do not go with {shape.depth} blocks",
            f"give [B, {shape.depth}]",
        )
    blocks = block_macs(
        shape,
        tokens_per_block,
        tokens_in=tokens_in,
        score_rows=score_rows,
        heads=heads,
        attention=attention,
        mlp=mlp,
    ).sum(dim=-1)
    last = _checked("tokens", tokens_per_block[..., -1] if final_tokens is None else final_tokens, shape.tokens)
    embedding = (shape.tokens - shape.prefix_tokens) * shape.channels * shape.patch_px**2 * shape.width
    normalised = (shape.tokens if shape.norm_pre else 0) + (last if shape.norm else 0) + int(shape.fc_norm)
    return embedding + blocks + NORM * shape.width * normalised + shape.width * shape.classes


def released_avit_macs(shape: VitShape, tokens_per_block: Tensor) -> Tensor:
    """MACs [B] by the count of the released code, which is above what an A-ViT without its dropped tokens computes.

    It takes each block for an ATS block: LayerNorm, queries, keys, values and scores at the number of tokens of the
    block before. `tokens_per_block` [B, L]. The released code rounds the mean over a data set and counts that once:
    give ``tokens.double().mean(0, keepdim=True).round()`` for its figure. Raises `EffbookError` as `vit_macs` does.
    """
    everything = torch.full_like(tokens_per_block[..., :1], shape.tokens)
    return vit_macs(shape, tokens_per_block, tokens_in=torch.cat([everything, tokens_per_block[..., :-1]], dim=-1))


def executed_macs(function: Callable[[], Any]) -> float:
    """MACs of all that one call of `function` really runs, counted by torch, with the LayerNorms' 5 an element.

    torch counts matrix products, convolutions and its own attention; nested tensors and kernels of others it can't.
    """

    def norm(input_shape: torch.Size, *_: Any, **__: Any) -> int:
        return 2 * NORM * math.prod(input_shape)  # twice, as two FLOPs are one MAC

    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.native_layer_norm: norm}) as counter:
        function()
    return counter.get_total_flops() / 2


def attack_success(clean: Tensor | float, attacked: Tensor | float, *, low: float = 0.0, high: float) -> float:
    """Attack Success in percent: what the attack brought back of what the victim had saved (4.1.5.1, "Metrics").

    100 (attacked - clean) / (high - clean), of the means over the images, all in one unit: MACs, milliseconds or
    joules. `high` is the cost without any saving; `low`, the least that the victim can cost, is only held against
    `clean`, to notice another unit. Negative where the attack lowered the cost. Of MACs it is at most 100; of what is
    measured it may be more, and is not capped.

    Raises `EffbookError` where high <= low, where a cost is not finite, or where the victim saves nothing.
    """
    before, after = (torch.as_tensor(cost, dtype=torch.float64).detach().mean().item() for cost in (clean, attacked))
    if not all(map(math.isfinite, (before, after, low, high))):
        raise EffbookError("A cost or a bound is not finite", "give the costs of at least one image, and finite bounds")
    if high <= low:
        raise EffbookError(f"The bound above, {high:g}, is not above the one below, {low:g}", "swap or recompute them")
    if before >= high:
        raise EffbookError(
            f"The victim saves nothing: it costs {before:g} before the attack, and {high:g} is the most",
            "attack a victim that saves, and give its costs and bounds in one unit",
        )
    if before < low * (1 - 1e-9):
        raise EffbookError(
            f"The victim costs {before:g} before the attack, below its bound of {low:g}",
            "give its costs and bounds in one unit",
        )
    return 100.0 * (after - before) / (high - before)


def _checked(what: str, counts: Tensor | float, most: int) -> Tensor:
    """Counts as float64, all in 0 ... most; else `EffbookError`."""
    counts = torch.as_tensor(counts).double()
    if counts.numel():
        least, greatest = (x.item() for x in counts.detach().aminmax())
        if not (least >= 0 and greatest <= most):  # false for NaN, too
            raise EffbookError(
                f"The {what} reach from {least:g} to {greatest:g}, outside 0 to {most}",
                "count what this ViT executes, with its prefix tokens",
            )
    return counts


def _refuse_unknown(vit: nn.Module) -> None:
    """`EffbookError` for a ViT that computes what the closed form does not count."""
    found: dict[str, bool] = {}
    try:
        embed, width = vit.patch_embed, vit.embed_dim
        attn, mlp = [b.attn for b in vit.blocks], [b.mlp for b in vit.blocks]
        always = [norm for b in vit.blocks for norm in (b.norm1, b.norm2)]
        perhaps = [vit.norm_pre, vit.norm, vit.fc_norm, *(a.q_norm for a in attn), *(a.k_norm for a in attn)]
        never = [embed.norm, *(getattr(part, "norm", nn.Identity()) for part in (*attn, *mlp))]
        found = {
            "norms other than LayerNorm": not all(isinstance(n, nn.LayerNorm) for n in always)
            or not all(isinstance(n, nn.LayerNorm | nn.Identity) for n in perhaps),
            "norms in its embedding, attention or MLPs": not all(isinstance(n, nn.Identity) for n in never),
            "heads that do not add up to its width": any(a.qkv.out_features != 3 * width for a in attn),
            "gated attention or MLPs": any(getattr(a, "gate", None) is not None for a in attn)
            or any(m.fc1.out_features != m.fc2.in_features for m in mlp),
            "blocks of different shapes": len({a.num_heads for a in attn}) != 1
            or len({m.fc1.out_features for m in mlp}) != 1
            or len({type(a.q_norm) for a in attn}) != 1,
            "attention pooling or a second head": vit.attn_pool is not None or hasattr(vit, "head_dist"),
            "a head of several layers": not isinstance(vit.head, nn.Linear | nn.Identity),
            "patches or images that are not square": embed.img_size is None
            or len({*embed.patch_size}) != 1
            or len({*embed.img_size}) != 1,
        }
    except AttributeError as error:
        found = {f"not the parts of a timm VisionTransformer ({error})": True}
    for cause, present in found.items():
        if present:
            raise EffbookError(f"The {type(vit).__name__} has {cause}", "take a plain timm VisionTransformer")
