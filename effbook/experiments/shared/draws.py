"""Which items of a data set a run sees: drawn on the CPU, from a seed alone."""

from typing import TYPE_CHECKING

from effbook.errors import EffbookError

if TYPE_CHECKING:
    import numpy as np


def few_shot(labels: "np.ndarray", *, shots: int, validation: int, seed: int) -> "tuple[np.ndarray, np.ndarray]":
    """Return the indices of `shots` items of each class and of `validation` others, drawn without replacement.

    `labels` is [N]. Raises EffbookError where a class has fewer items than `shots`, or too few others are left.
    """
    import numpy as np

    draw = np.random.default_rng([seed, 20_24])
    order = draw.permutation(len(labels))
    classes, sizes = np.unique(labels, return_counts=True)
    if shots > sizes.min():
        raise EffbookError(
            f"{shots} shots cannot be drawn of class {classes[sizes.argmin()]}, which has {sizes.min()} items",
            f"choose shots of at most {sizes.min()}",
        )
    picked = np.concatenate([order[labels[order] == c][:shots] for c in classes])
    rest = order[~np.isin(order, picked)]
    return picked, rest[: at_most(validation, len(rest), "items to validate with")]


def subset(count: int, wanted: int | None, *, seed: int = 0) -> "np.ndarray":
    """Return the sorted indices of `wanted` of `count` items (None: all), drawn without replacement.

    Raises EffbookError where fewer are there.
    """
    import numpy as np

    if wanted is None or at_most(wanted, count, "items") == count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, wanted, replace=False))


def at_most(wanted: int, there: int, what: str) -> int:
    """Return `wanted`; EffbookError if it is more than `there`: a record must not claim more than its run saw."""
    if wanted > there:
        raise EffbookError(f"{wanted} {what} are asked for where {there} are there", f"choose {there} or fewer")
    return wanted
