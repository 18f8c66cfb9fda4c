"""CMSF's lines of the ledger: what a search costs, what the training device holds, and what `mini` trainings are worth.

Both sides of a time run in turns in one process, in the process's own time on a CPU, so that others' work has no part.
The dissertation's own figures are from four NVIDIA 2080 Ti (2.1.4).
"""

import dataclasses
import gc
import time
from collections.abc import Callable

from effbook.runs.bench import FromRecords, Ratio, compare, difference, mean_of, of_pairs, ratio, register_bench

SIZE, DIM, BATCH = 128_000, 512, 256  # of the bank and the batch with ResNet-50
CLASSES = 1000
STEPS, WARM_UP = 240, 3


def at_mini(name: str, **fields: object):  # -> Recipe
    """A recipe of the dissertation as `mini` runs it."""
    from effbook.runs.profiles import scale
    from effbook.runs.recipe import make

    return scale(make(name, **fields), "mini")


def clock() -> Callable[[], float] | None:
    """The process's own time; None on a GPU, whose work a process does not see."""
    import torch

    return None if torch.cuda.is_available() else time.process_time


def device():  # -> torch.device
    """Where a training would run."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


# ------------------------------------------------------------------------------- a training step


def step_beside_byol(method: str) -> Ratio:
    """Time of a whole training step of `mini` over BYOL-asym's, both with a full bank; making views is not counted."""
    from effbook.experiments.cmsf.overhead import Side

    recipes = [at_mini("cmsf-overhead", method=one) for one in (method, "byol")]
    own, byol = (Side(dataclasses.replace(one, steps=STEPS + WARM_UP), device()) for one in recipes)
    pairs = [(own.step(), byol.step()) for _ in range(STEPS + WARM_UP)]
    return of_pairs(pairs[WARM_UP:], "ms")


def step_beside_plain() -> Ratio:
    """Time of a whole step of CMSF_self over one forward and backward pass of the same encoder, of one view."""
    import torch

    from effbook.experiments.cmsf.inputs import new_encoder
    from effbook.experiments.cmsf.overhead import Side

    recipe = dataclasses.replace(at_mini("cmsf-overhead", method="cmsf-self"), steps=STEPS // 4 + WARM_UP)
    own, encoder = Side(recipe, device()), new_encoder(recipe).to(device())
    size_px = recipe.view_px or recipe.image_px
    view = torch.randn(recipe.batch_size, 3, size_px, size_px, generator=torch.Generator().manual_seed(0)).to(device())
    now = clock() or (lambda: (torch.cuda.synchronize(), time.perf_counter())[1])

    def plain() -> float:
        start = now()
        encoder(view).sum().backward()
        return 1000 * (now() - start)

    pairs = [(own.step(), plain()) for _ in range(recipe.steps)]
    return of_pairs(pairs[WARM_UP:], "ms")


# ------------------------------------------------------------------------------- the search in a large bank


def full_bank(*, labelled: float = 1.0, size: int = SIZE, dim: int = DIM):  # -> Bank
    """A bank of random unit vectors that is full; all but a share of the entries have no label."""
    import torch

    from effbook.training.bank import Bank

    bank, draw = Bank(size, dim, second_dim=dim, device=device()), torch.Generator().manual_seed(0)
    bank.index.copy_(torch.arange(size))
    bank.label.copy_(torch.randint(CLASSES, (size,), generator=draw))
    bank.label[(torch.rand(size, generator=draw) >= labelled).to(bank.label.device)] = -1
    bank.known[:] = True
    bank.filled = size
    return bank


def constraints(k: int) -> dict:
    """The four whose search counts, by name."""
    from effbook.cmsf.constraints import ConfidentPseudoLabel, PreviousEpoch, SameLabel, Unconstrained

    return {
        "M": Unconstrained(k=k),
        "M'": PreviousEpoch(k=k, k_prime=k),
        "same label": SameLabel(k=k),
        "pseudo-label": ConfidentPseudoLabel(k=k),
    }


def search_beside_product(name: str, k: int) -> Ratio:
    """Time of a constraint's search over that of one matrix product and its k largest, of the same shapes.

    For pseudo-labels half of the entries have one.
    """
    import torch

    bank = full_bank(labelled=0.5 if name == "pseudo-label" else 1.0)
    positions = torch.arange(BATCH, device=bank.embeddings.device)
    queries, constraint = bank.embeddings[positions], constraints(k)[name]
    return compare(
        lambda: constraint(bank, positions),
        lambda: (queries @ bank.embeddings.T).topk(k, dim=1),
        repeats=11,
        warm_up=1,
        clock=clock(),
    )


def our_loss(v, bank, positions, name: str, k: int):  # -> Tensor
    """The loss of v [B, D] with a constraint of `constraints`, as a step has it; in M' with its unconstrained half."""
    from effbook.cmsf.loss import mean_shift_loss

    names = ("M'", "M") if name == "M'" else (name,)
    losses = [mean_shift_loss(v, bank, constraints(k)[one](bank, positions)) for one in names]
    return sum(losses) / len(losses)


def released_loss(v, bank, positions, name: str, k: int):  # -> Tensor
    """The same loss in the released form: the distances of v and of u to all of M are formed, [B, M] each.

    Those of u say which k of those of v count. In M' the distances of w are formed, too.
    """
    import torch

    with torch.no_grad():
        distance_u = 2 - 2 * bank.embeddings[positions] @ bank.embeddings.T
        if name == "same label":
            others = bank.label[positions, None] != bank.label
            distance_u = torch.where(others, distance_u + 5, distance_u)  # beyond any real one
        chosen = [distance_u.topk(k, dim=1, largest=False).indices]
        if name == "M'":
            distance_w = 2 - 2 * bank.second[positions] @ bank.second.T
            chosen.append(distance_w.topk(k, dim=1, largest=False).indices)
    distance_v = 2 - 2 * v @ bank.embeddings.T
    return sum(distance_v.gather(1, places).mean() for places in chosen) / len(chosen)


def released_beside_ours(name: str, k: int) -> Ratio:
    """Time of search, loss and backward in the released form over ours."""
    import torch

    bank = full_bank()
    positions = torch.arange(BATCH, device=bank.embeddings.device)
    v = bank.embeddings[-BATCH:].clone().requires_grad_()

    def once(loss: Callable) -> Callable[[], None]:
        def run() -> None:
            v.grad = None
            loss(v, bank, positions, name, k).backward()

        return run

    return compare(once(released_loss), once(our_loss), repeats=7, warm_up=1, clock=clock())


# ------------------------------------------------------------------------------- memory


def memory(images: int) -> tuple[int, int]:
    """Bytes on the training device and in the host's cache, of CMSF_self at `mini` with so many training images.

    On a GPU the first is the peak of two steps. On a CPU both lie in one memory, so it is told by owner: all tensors
    that method and optimiser hold after these steps, but for the cache's.
    """
    import torch

    from effbook.cmsf.config import MeanShiftSettings
    from effbook.cmsf.networks import Networks
    from effbook.cmsf.step import MeanShift
    from effbook.experiments.cmsf.inputs import new_encoder
    from effbook.experiments.cmsf.learning import constraint_of
    from effbook.runs.memory import PeakMemory
    from effbook.training.views import Batch

    recipe, draw = at_mini("cmsf-train"), torch.Generator().manual_seed(0)
    gc.collect()
    with PeakMemory() as peak:
        encoder = new_encoder(recipe).to(device())
        settings = MeanShiftSettings(k=recipe.k, bank_size=recipe.bank, unconstrained_half=True)
        networks = Networks(encoder, encoder.num_features)
        method = MeanShift(networks, constraint_of(recipe), settings, images=images)
        sgd = torch.optim.SGD(method.trained(), lr=recipe.learning_rate, momentum=0.9)
        size_px = recipe.view_px or recipe.image_px
        view = torch.randn(recipe.batch_size, 3, size_px, size_px, generator=draw)
        label = torch.full((recipe.batch_size,), -1)
        for _ in range(2):
            index = torch.randint(images, (recipe.batch_size,), generator=draw)
            method.loss(Batch(index, (view,), view, label).to(device())).backward()
            sgd.step()
            sgd.zero_grad()
    cache_bytes = sum(tensors_of(method.cache).values())
    if peak.gpu_bytes is not None:
        return peak.gpu_bytes, cache_bytes
    return sum((tensors_of(method) | tensors_of(sgd)).values()) - cache_bytes, cache_bytes


def tensors_of(thing: object) -> dict[int, int]:
    """The bytes of each storage that tensors within an object use, by address, so that none counts twice."""
    import torch

    if isinstance(thing, torch.Tensor):
        held = thing.untyped_storage()
        return {held.data_ptr(): held.nbytes()} | tensors_of(thing.grad if thing.is_leaf else None)
    if isinstance(thing, dict):
        parts = [*thing.keys(), *thing.values()]
    elif isinstance(thing, list | tuple | set):
        parts = list(thing)
    else:
        inside = type(thing).__module__.startswith(("torch.", "effbook."))
        parts = list(vars(thing).values()) if inside and hasattr(thing, "__dict__") else []
    return {address: size for part in parts for address, size in tensors_of(part).items()}


FEW, MANY = 10_000, 1_280_000


def cache_beside_one_copy() -> Ratio:
    """Bytes of the host's cache of 1.28M images over one float32 embedding of each."""
    from effbook.experiments.cmsf.inputs import new_encoder

    dim = new_encoder(at_mini("cmsf-train")).num_features // 4
    return ratio(memory(MANY)[1], 4 * dim * MANY, "bytes")


# ------------------------------------------------------------------------------- what `mini` trainings are worth


def linear(**fields: object) -> FromRecords:
    """Linear accuracy of `mini`, the mean over its seeds, from the records."""
    from effbook.runs.profiles import seeds, with_seeds

    recipe = at_mini("cmsf-linear", **fields)
    return mean_of("top1", with_seeds(recipe, seeds(recipe, "mini")), "mini")


def lost(**fields: object) -> FromRecords:
    """Points of linear accuracy that are lost from right labels to half of them wrong (Table A.12)."""
    noisy = {"dataset": "imagenet100", "noise": 0.5} | fields
    return linear(**fields, dataset="imagenet100") - linear(**noisy)


# As the register has them: Tables 2.1, 2.2 and A.12, and the two that nothing has trained
BYOL, MSF, SELF = {"method": "byol"}, {"method": "msf", "bank": 256_000}, {}
PIXELS, RANDOM = {"method": "none", "encoder": "pixels", "image_px": 32}, {"method": "none"}
XENT, TOP10, TOPALL = {"method": "xent"}, {"method": "cmsf-sup", "k": 10}, {"method": "cmsf-sup", "k": None}


register_bench("cmsf", "step: CMSF_self / BYOL-asym", lambda: step_beside_byol("cmsf-self"), "<= 1.04", "1.021")
register_bench("cmsf", "step: MSF / BYOL-asym", lambda: step_beside_byol("msf"), "<= 1.02", "1.007")
register_bench("cmsf", "step: BYOL-asym / itself", lambda: step_beside_byol("byol"))
register_bench("cmsf", "step: CMSF_self / forward and backward of its encoder", step_beside_plain)
for _name, _k in (("M", 5), ("M'", 5), ("same label", 10), ("pseudo-label", 10)):
    register_bench(
        "cmsf",
        f"search in 128K x 512, {_name}: top-{_k} / bare product and top-{_k}",
        lambda name=_name, k=_k: search_beside_product(name, k),
        "<= 1.1",
    )
for _label, _name, _k, _figure in (
    ("M", "M", 5, ">= 2.5"),
    ("same label", "same label", 10, ">= 2.5"),
    ("M and M'", "M'", 5, ""),  # two products of ours against four
):
    register_bench(
        "cmsf",
        f"search, loss and backward, {_label}: released form / ours",
        lambda name=_name, k=_k: released_beside_ours(name, k),
        _figure,
    )
register_bench(
    "cmsf",
    "bytes on the training device: 1.28M images / 10,000",
    lambda: ratio(memory(MANY)[0], memory(FEW)[0], "bytes"),
    "<= 1",
)
register_bench(
    "cmsf",
    "bytes of the host's cache: 1.28M images / 10,000",
    lambda: ratio(memory(MANY)[1], memory(FEW)[1], "bytes"),
)
register_bench("cmsf", "bytes of the host's cache: 1.28M images / one copy", cache_beside_one_copy, "<= 1.05")
for _name, _a, _b, _figure, _reported in (
    ("BYOL-asym - raw pixels", BYOL, PIXELS, ">= 4", ""),
    ("BYOL-asym - a random network", BYOL, RANDOM, ">= 6", ""),
    ("CMSF_self - MSF", SELF, MSF, ">= 1", "0.9 (ImageNet-1k)"),
):
    register_bench(
        "cmsf",
        f"linear accuracy: {_name}, mini",
        lambda a=_a, b=_b: difference(linear(**a), linear(**b), "%"),
        _figure,
        _reported,
    )
for _name, _fields, _reported in (("Xent", XENT, "13.0 (ImageNet-100)"), ("top-all", TOPALL, "18.4 (ImageNet-100)")):
    register_bench(
        "cmsf",
        f"linear accuracy lost to 50 % noise: {_name} - top-10, mini",
        lambda fields=_fields: difference(lost(**fields), lost(**TOP10), "points"),
        ">= 2",
        _reported,
    )
