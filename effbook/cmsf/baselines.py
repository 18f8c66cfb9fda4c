"""The losses that mean shift is compared with: SupCon, ProtoNW, InfoNCE, CoCLR's; Xent needs a linear layer only.

All are asymmetric, as mean shift is: queries q [B, D] of the online network, with gradient, against a bank [M, D] of
target embeddings. Both are of unit length. The batch's own targets are in the bank already; `own` [B] says where. The
order of a step and the bank are thus the same for every method, and the losses are all that differs.
"""

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from effbook.errors import EffbookError


def drawn_linear(dim_in: int, dim_out: int, *, generator: Generator) -> nn.Linear:
    """A linear layer with torch's usual start, drawn from a generator in place of the global state."""
    layer = nn.utils.skip_init(nn.Linear, dim_in, dim_out)
    for value in (layer.weight, layer.bias):
        nn.init.uniform_(value, -(dim_in**-0.5), dim_in**-0.5, generator=generator)
    return layer


def supcon_head(dim: int, dim_out: int = 128, *, generator: Generator) -> nn.Sequential:
    """SupCon's head d -> d -> 128: linear, batch norm, ReLU, linear (A.1.5.2)."""
    first, last = (drawn_linear(dim, size, generator=generator) for size in (dim, dim_out))
    return nn.Sequential(first, nn.BatchNorm1d(dim), nn.ReLU(inplace=True), last)


def info_nce(q: Tensor, bank: Tensor, own: Tensor, *, temperature: float = 0.07) -> Tensor:
    """-log of the share that a query's own target has in the softmax over the bank, averaged over the batch.

    It is MoCo's loss; the batch's other targets are among the negatives, as the bank holds them. Raises EffbookError
    where shapes do not fit.
    """
    check(q, bank, own)
    return F.cross_entropy(q @ bank.T / temperature, own)


def supcon(
    q: Tensor,
    bank: Tensor,
    own: Tensor,
    *,
    labels: Tensor,
    bank_labels: Tensor,
    with_target: bool = True,
    temperature: float = 0.1,
) -> Tensor:
    """Supervised contrastive loss: -log softmax over the bank, averaged over the entries of the query's class [B], [M].

    Without `with_target` (the base version, Table A.10b) the own target is neither a positive nor a negative. A bank
    label of -1 is no class: a negative for all. Queries without a positive are left out of the mean; if all are, the
    loss is 0. Raises EffbookError where shapes do not fit. Source: Khosla et al. 2020, L_out; A.1.5.2.
    """
    check(q, bank, own, labels=labels, bank_labels=bank_labels)
    logits = q @ bank.T / temperature  # [B, M]
    positive = (labels[:, None] == bank_labels) & (bank_labels >= 0)
    is_own = torch.zeros_like(positive).scatter_(1, own[:, None], True)
    if with_target:
        positive = positive | is_own
    else:
        logits, positive = logits.masked_fill(is_own, -torch.inf), positive & ~is_own
    count = positive.sum(1)  # [B]
    mean = torch.where(positive, logits, 0).sum(1) / count.clamp(min=1)
    losses = logits.logsumexp(1) - mean
    return torch.where(count > 0, losses, 0).sum() / (count > 0).sum().clamp(min=1)


def proto_nw(
    q: Tensor, bank: Tensor, *, labels: Tensor, bank_labels: Tensor, classes: int, temperature: float = 0.1
) -> Tensor:
    """Cross-entropy of a softmax over the cosines to the classes' prototypes, the means of their bank entries.

    A class without entries has no prototype; queries of such a class, or of none (-1), are left out. Raises
    EffbookError where shapes do not fit or a label is not below `classes`. Source: A.1.5.2.
    """
    check(q, bank, labels=labels, bank_labels=bank_labels)
    if max(int(labels.max()), int(bank_labels.max())) >= classes:
        raise EffbookError(f"a label is not below {classes}", "give the number of classes, and labels below it")
    real = bank_labels >= 0
    place = bank_labels.where(real, classes)  # entries without a class go to a row of their own, which is dropped
    sums = bank.new_zeros(classes + 1, bank.shape[1]).index_add(0, place, bank)[:classes]
    present = torch.bincount(place, minlength=classes + 1)[:classes] > 0
    prototypes = F.normalize(sums, dim=1)  # [C, D]; sum and mean have one direction
    logits = (q @ prototypes.T / temperature).masked_fill(~present, -torch.inf)
    counted = (labels >= 0) & present[labels.clamp(min=0)]
    if not counted.any():
        return q.sum() * 0
    return F.cross_entropy(logits[counted], labels[counted])


def mine(w: Tensor, other_bank: Tensor, own: Tensor, *, k: int) -> Tensor:
    """Positions [B, k] of a query's positives, mined in the other modality: its own first, then its k - 1 nearest.

    w [B, D'] are the batch's embeddings there, at the positions `own` of that bank [M, D']. CoCLR's "top 5 and the own
    one" is k = 6. Raises EffbookError for a bank smaller than k.
    """
    check(w, other_bank, own)
    if not 1 <= k <= len(other_bank):
        raise EffbookError(f"{k} positives cannot be taken from a bank of {len(other_bank)}", "choose a smaller k")
    return (w @ other_bank.T).scatter(1, own[:, None], torch.inf).topk(k, dim=1).indices


def multi_instance_nce(q: Tensor, bank: Tensor, positives: Tensor, *, temperature: float = 0.07) -> Tensor:
    """CoCLR's loss: -log of the share that all positives [B, k] have together in the softmax over the bank.

    Raises EffbookError where shapes do not fit. Source: A.1.2 (CoCLR, Han et al. 2020).
    """
    check(q, bank, positives[:, 0])
    logits = q @ bank.T / temperature
    return (logits.logsumexp(1) - logits.gather(1, positives).logsumexp(1)).mean()


def check(
    q: Tensor,
    bank: Tensor,
    own: Tensor | None = None,
    *,
    labels: Tensor | None = None,
    bank_labels: Tensor | None = None,
) -> None:
    """Raise EffbookError where the batch or the bank is empty, or shapes do not fit."""
    of_batch = [x for x in (own, labels) if x is not None]
    fits = q.ndim == bank.ndim == 2 and q.shape[1] == bank.shape[1] and len(q) and len(bank)
    fits = fits and all(x.shape == q.shape[:1] for x in of_batch)
    if not fits or (bank_labels is not None and bank_labels.shape != bank.shape[:1]):
        raise EffbookError(
            f"Queries {tuple(q.shape)} do not go with a bank {tuple(bank.shape)} and their labels and positions",
            "give queries [B, D], a bank [M, D], and labels and positions [B] and [M]",
        )
