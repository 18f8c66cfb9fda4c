"""Labels made worse on purpose: a share of them changed at random, or classes merged into coarser ones (2.1.4.2)."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from effbook.errors import EffbookError


def corrupt(labels: Tensor, share: float, *, classes: int, seed: int) -> Tensor:
    """Change the labels [N] of `share` (0 to 1) of the images at random; the others, and the order, stay.

    "Change the label randomly" is read literally: the new label is any *other* class, each as likely, so that a share
    of 50 % is 50 % of wrong labels. (Were the own class drawn too, two coarse classes would get half of it.) The count
    is exact, to the nearest image. With one seed a larger share changes the same images to the same labels, and more.
    Raises EffbookError for a share outside 0..1, fewer than two classes, or labels outside 0..classes - 1.
    """
    if not (math.isfinite(share) and 0 <= share <= 1):
        raise EffbookError(f"{share!r} of the labels cannot be changed", "give a share from 0 to 1")
    if classes < 2:
        raise EffbookError(f"{classes} class has no other class to change to", "give at least two classes")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise EffbookError(
            f"labels run from {int(labels.min())} to {int(labels.max())}", f"give labels from 0 to {classes - 1}"
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    turn = torch.randint(1, classes, (len(labels),), generator=generator)  # never a whole circle: never the own class
    changed = order[: round(share * len(labels))].to(labels.device)
    noisy = labels.clone()
    noisy[changed] = (labels[changed] + turn.to(labels)[changed]) % classes
    return noisy


def coarsen(labels: Tensor, parents: Sequence[int] | Mapping[int, int]) -> Tensor:
    """The coarse label of each image [N]: `parents[fine]`; -1 (no label) stays -1.

    Raises EffbookError for a label that has no parent, or a parent below 0. Source: A.1.4.1.
    """
    known = dict(parents) if isinstance(parents, Mapping) else dict(enumerate(parents))
    fine, places = labels.unique(return_inverse=True)
    missing = [label for label in fine.tolist() if label != -1 and known.get(label, -1) < 0]
    if missing:
        raise EffbookError(f"class {missing[0]} has no coarse class", "give `parents` an entry for each class")
    coarse = torch.tensor([known.get(label, -1) if label != -1 else -1 for label in fine.tolist()])
    return coarse.to(labels)[places]
