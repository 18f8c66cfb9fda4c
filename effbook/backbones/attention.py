"""Separate query, key and value layers where a library fuses them, so that an adapter can take just two of them."""

import torch
from torch import Tensor, nn

from effbook.errors import EffbookError


class SplitQKV(nn.Module):
    """Three Linear layers in the place of one fused projection: [..., D] to [..., 3 * D], query, key, value in turn."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.q, self.k, self.v = (
            _linear(w, None if bias is None else b)
            for w, b in zip(weight.chunk(3), (bias if bias is not None else weight).chunk(3), strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.q(x), self.k(x), self.v(x)], dim=-1)


def split_qkv(model: nn.Module) -> nn.Module:
    """Replace, in place, fused projections by `SplitQKV` and GPT-2's transposed ``Conv1D`` by ``nn.Linear``.

    timm's ``attn.qkv`` becomes ``attn.qkv.q``, ``.k`` and ``.v``; GPT-2's ``attn.c_attn`` likewise. Outputs and the
    number of parameters stay the same. Models that never fuse them (LLaMA's ``q_proj``...) pass unchanged.
    Raises `EffbookError` for a fused layer that does not hold three equal parts.
    """
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            weight = _weight(layer)  # [out, in]
            if weight is None:
                continue
            if name in ("qkv", "c_attn"):
                if weight.shape[0] != 3 * weight.shape[1]:
                    raise EffbookError(
                        f"{name} of shape {tuple(weight.shape)} is no fused query, key and value of equal widths",
                        "adapt the fused layer itself",
                    )
                setattr(parent, name, SplitQKV(weight, layer.bias))
            elif not isinstance(layer, nn.Linear):
                setattr(parent, name, _linear(weight, layer.bias))
    return model


def _weight(layer: nn.Module) -> Tensor | None:
    """The weight [out, in] of a Linear or of transformers' Conv1D (which stores [in, out]); None for others."""
    if isinstance(layer, nn.Linear):
        return layer.weight
    if type(layer).__name__ == "Conv1D" and hasattr(layer, "nf"):
        return layer.weight.T
    return None


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")  # draws no numbers
    layer.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format), weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), bias.requires_grad)
    return layer
