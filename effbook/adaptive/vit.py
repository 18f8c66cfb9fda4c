"""A timm VisionTransformer by its parts, so that a victim can run each on the tokens that it chose."""

import math

import torch
from torch import Tensor, nn

from effbook.errors import EffbookError


def check_vit(vit: nn.Module) -> None:
    """Raise EffbookError where the model is no plain timm VisionTransformer whose parts and costs are known here.

    Known are LayerScale, register tokens, and pooling by class token, mean, maximum or both.
    """
    from timm.layers import Attention, LayerNorm, Mlp, PatchEmbed
    from timm.models.vision_transformer import Block, VisionTransformer

    if type(vit) is not VisionTransformer:
        raise EffbookError(f"{type(vit).__name__} is no plain timm VisionTransformer", "wrap one of timm's ViTs")
    blocks = list(vit.blocks)
    attentions, mlps = [getattr(b, "attn", None) for b in blocks], [getattr(b, "mlp", None) for b in blocks]
    rates = [m.p for m in vit.modules() if isinstance(m, nn.Dropout)]
    rates += [m.drop_prob for m in vit.modules() if hasattr(m, "drop_prob")]
    unknown = {
        "blocks of another kind": any(type(b) is not Block for b in blocks),
        "attention of another kind": any(type(a) is not Attention or a.gate is not None for a in attentions),
        "an MLP of another kind": any(type(m) is not Mlp for m in mlps),
        "norms within attention outputs or MLPs": any(
            not isinstance(getattr(part, "norm", part), nn.Identity) for part in attentions + mlps
        ),
        "norms that are no LayerNorm": any(
            type(getattr(b, name, None)) is not LayerNorm for b in blocks for name in ("norm1", "norm2")
        ),
        "an embedding of another kind": type(vit.patch_embed) is not PatchEmbed
        or not isinstance(vit.patch_embed.norm, nn.Identity)
        or vit.dynamic_img_size,
        "pooling by attention, or none": vit.attn_pool is not None or not vit.global_pool,
        "dropout or stochastic depth": any(rate > 0 for rate in rates) or not isinstance(vit.patch_drop, nn.Identity),
        "no classifier": not isinstance(vit.head, nn.Linear),
    }
    for what, found in unknown.items():
        if found:
            raise EffbookError(f"the ViT has {what}, which its parts do not cover", "make it without")


def patch_tokens(vit: nn.Module) -> int:
    """How many patches an image has, N."""
    return vit.patch_embed.num_patches


def embed(vit: nn.Module, images: Tensor) -> Tensor:
    """Normalised images to tokens [B, P + N, D]: class and register tokens first, positions added."""
    return vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))


def queries_keys_values(block: nn.Module, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What attention compares and sums for tokens [..., D]: three of [..., H, d]."""
    attn = block.attn
    q, k, v = attn.qkv(block.norm1(tokens)).unflatten(-1, (3, attn.num_heads, attn.head_dim)).unbind(-3)
    return attn.q_norm(q), attn.k_norm(k), v


def after_attention(block: nn.Module, tokens: Tensor, attended: Tensor) -> Tensor:
    """The heads' outputs [..., H, d] projected and added to the tokens [..., D], then the block's MLP."""
    tokens = tokens + block.ls1(block.attn.proj(attended.flatten(-2)))
    return tokens + block.ls2(block.mlp(block.norm2(tokens)))


def class_logits(vit: nn.Module, normed: Tensor, alive: Tensor) -> Tensor:
    """Pool the tokens [B, P + N, D] after the last norm, those alive, [B, P + N] bool, and classify: [B, C]."""
    if vit.global_pool == "token":
        return vit.head(vit.fc_norm(normed[:, 0]))
    if not vit.pool_include_prefix:
        normed, alive = normed[:, vit.num_prefix_tokens :], alive[:, vit.num_prefix_tokens :]
    alive = alive[..., None]
    mean = normed.where(alive, 0).sum(1) / alive.sum(1).clamp_min(1)
    if vit.global_pool == "avg":
        return vit.head(vit.fc_norm(mean))
    most = normed.where(alive, -math.inf).amax(1)
    return vit.head(vit.fc_norm(most if vit.global_pool == "max" else 0.5 * (most + mean)))


def normalised(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Pixels in 0..1 as the ViT wants them, by channel."""
    return (images - mean[:, None, None]) / std[:, None, None]


def channels(values: tuple[float, ...], name: str) -> Tensor:
    """Mean or deviation of the three channels, [3]. Raises EffbookError where they are not three numbers."""
    if len(values) != 3 or not all(math.isfinite(v) for v in values) or (name == "std" and min(values) <= 0):
        raise EffbookError(f"{name} is {values}", "give three numbers, one a channel, and deviations above 0")
    return torch.tensor(values, dtype=torch.float32)
