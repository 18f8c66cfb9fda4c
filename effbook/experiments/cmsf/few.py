"""Which images keep their label where few do: ImageNet's published lists, elsewhere a draw."""

import torch
from torch import Tensor

from effbook.data import fetch
from effbook.evaluate.few import few_labels, listed, read_list
from effbook.experiments.cmsf.settings import LISTS, PUBLISHED, lists_of
from effbook.experiments.shared.splits import Split


def labelled(images: Split, share: float, *, seed: int) -> Tensor:
    """Indices, rising, of the images that keep their label: as many of each class, from the seed.

    Of 1 % and 10 % of ImageNet those that SimCLR's authors published, whatever the seed. Raises EffbookError where an
    image of these lists is missing.
    """
    dataset, part, drawn, _ = images.drawn
    if part == "train" and drawn is None and lists_of(dataset, share):
        return listed(images.images.files.paths, read_list(fetch(LISTS) / PUBLISHED[share]))
    return few_labels(images.labels, share, seed=seed)


def shown(images: Split, share: float, *, seed: int) -> Tensor:
    """`labelled` as a mask: bool [N]."""
    chosen = torch.zeros(len(images), dtype=torch.bool)
    chosen[labelled(images, share, seed=seed)] = True
    return chosen
