"""Ragged batches without padding: the tokens of all images in one row, and how many each image has.

Linear layers, norms and MLPs act on [T, D] as they are; attention alone must know where an image ends.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def pack(tokens: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
    """Gather the tokens [B, N, ...] that are alive, [B, N] bool, into one row [T, ...], and count them, [B]."""
    return tokens[alive], alive.sum(1)


def unpack(packed: Tensor, alive: Tensor) -> Tensor:
    """Put packed [T, ...] back to where they are alive, [B, N] bool; zeros elsewhere. The inverse of `pack`."""
    tokens = packed.new_zeros(*alive.shape, *packed.shape[1:])
    tokens[alive] = packed
    return tokens


def masked_attention(q: Tensor, k: Tensor, v: Tensor, alive: Tensor | None = None) -> Tensor:
    """Attention of whole batches [B, N, H, d] to the keys that are alive, [B, N] bool; None: all of them.

    An image without any key gets zeros.
    """
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))  # [B, H, N, d]
    mask = None if alive is None or alive.all() else alive[:, None, None]  # without a mask the kernels are quicker
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def packed_attention(q: Tensor, k: Tensor, v: Tensor, counts: Tensor, query_counts: Tensor | None = None) -> Tensor:
    """Attention within each image over packed queries [T_q, H, d], keys and values [T, H, d]; gives [T_q, H, d].

    `counts` [B] are the keys of each image, `query_counts` its queries if there are fewer. Equal counts are one dense
    call. Else on the CPU images pass one by one; on CUDA they share torch's variable-length kernel in half precision,
    and are padded in other types.
    """
    query_counts = counts if query_counts is None else query_counts
    keys, queries = counts.tolist(), query_counts.tolist()
    images = len(keys)
    if len(set(keys)) == 1 and len(set(queries)) == 1:
        q, k, v = (part.unflatten(0, (images, -1)) for part in (q, k, v)) if len(q) else (q, k, v)
        return masked_attention(q, k, v).flatten(0, 1) if len(q) else q
    if not q.is_cuda:
        outputs = [
            masked_attention(q_b[None], k_b[None], v_b[None])[0] if len(q_b) else q_b
            for q_b, k_b, v_b in zip(q.split(queries), k.split(keys), v.split(keys), strict=True)
        ]
        return torch.cat(outputs)
    variable = _variable_length() if q.dtype in (torch.float16, torch.bfloat16) else None
    if variable is not None:
        ends = [F.pad(c.cumsum(0), (1, 0)).to(torch.int32) for c in (query_counts, counts)]
        return variable(q, k, v, *ends, max(queries), max(keys))
    has_query = torch.arange(max(queries), device=q.device) < query_counts[:, None]  # [B, most queries]
    has_key = torch.arange(max(keys), device=q.device) < counts[:, None]
    return masked_attention(unpack(q, has_query), unpack(k, has_key), unpack(v, has_key), has_key)[has_query]


def _variable_length():
    """Torch's attention over ragged batches, where this torch has it."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn
