"""CompGS: train a scene of Gaussians so that many of them can share parameters (section 3.1.3).

K-means replaces each Gaussian's colour and covariance by the nearest of a few thousand codes. Done after training, this
spoils the pictures. So it is done while training: what is drawn is the quantised scene, what is updated are the
parameters behind it (straight-through), and after each step the codes follow as the means of their members. Finding the
nearest code again is dear; it is done every `interval` iterations only. A penalty on opacity makes Gaussians that do
little vanish, and they are pruned.

    fit(gaussians, cameras, images, TrainSettings(), CompGSSettings(), extent=extent)
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from effbook.compgs import kmeans
from effbook.compgs.config import Book, CompGSSettings
from effbook.compgs.model import Codebook, Compressed, index_type, joined, split
from effbook.errors import EffbookError
from effbook.gaussians import train
from effbook.gaussians.camera import Camera
from effbook.gaussians.densify import prune
from effbook.gaussians.model import Gaussians
from effbook.gaussians.parameters import width


class _StraightThrough(torch.autograd.Function):
    """Forward the codes, backward as if nothing had been replaced."""

    @staticmethod
    def forward(ctx, raw: Tensor, coded: Tensor) -> Tensor:
        return coded.clone()

    @staticmethod
    def backward(ctx, slope: Tensor) -> tuple[Tensor, None]:
        return slope, None


class Quantiser:
    """What CompGS adds to a training loop: `before`, `penalty` and `after` are the hooks of `gaussians.train.fit`.

    `frozen` gives codes [K, D] by the parameters they stand for (as `Codebook.parameters`): those are not moved, only
    assigned, as with a codebook shared between scenes.
    """

    def __init__(self, settings: CompGSSettings, *, frozen: Mapping[tuple[str, ...], Tensor] | None = None) -> None:
        self.settings = settings
        self.frozen = dict(frozen or {})
        self.codes: dict[tuple[str, ...], Tensor] = {}  # [K, D]
        self.indices: dict[tuple[str, ...], Tensor] = {}  # [N]
        self._due = False
        self._generator = torch.Generator().manual_seed(settings.seed)
        if unknown := set(self.frozen) - {book.parameters for book in settings.books}:
            raise EffbookError(f"frozen codes for {sorted(unknown)}, which are not quantised", "add a book for them")
        for name, codes in self.frozen.items():
            wanted = sum(map(width, name))
            if codes.ndim != 2 or codes.shape[1] != wanted or not torch.isfinite(codes).all():
                raise EffbookError(
                    f"frozen codes for {' and '.join(name)} have the shape {tuple(codes.shape)} or are not finite",
                    f"give finite numbers [K, {wanted}]",
                )

    def before(self, state: train.State) -> Gaussians:
        """The scene to draw: from `start` on, quantised."""
        if state.iteration < self.settings.start:
            return state.gaussians
        return self.quantise(state.gaussians, state.iteration)

    def quantise(self, gaussians: Gaussians, iteration: int) -> Gaussians:
        """Replace parameters by their codes; gradients pass to the parameters as if they had not been replaced."""
        since = iteration - self.settings.start
        due = self._due or not self.codes or (since % self.settings.interval == 0 and iteration <= self.settings.end)
        self._due = False
        drawn = gaussians.tensors()
        for book in self.settings.books:
            name = book.parameters
            raw = joined(gaussians, name)  # [N, D]
            if name not in self.codes:
                given, most = self.frozen.get(name), min(book.codes, len(raw))  # pruning may leave fewer than K
                fresh = kmeans.first_codes(raw, most, self._generator) if given is None else given.to(raw)
                self.codes[name] = fresh
            elif name not in self.frozen:
                self.codes[name] = kmeans.centres(raw, self.indices[name], self.codes[name])
            if due:
                self._assign(name, raw)
            coded = self.codes[name][self.indices[name]]
            drawn.update(split(_StraightThrough.apply(raw, coded), name))
        return Gaussians(**drawn)

    def _assign(self, name: tuple[str, ...], raw: Tensor) -> None:
        for _ in range(self.settings.kmeans_iterations):
            self.indices[name] = kmeans.assign(raw, self.codes[name])
            if name not in self.frozen:
                self.codes[name], self.indices[name] = kmeans.reseed(raw, self.codes[name], self.indices[name])
                self.codes[name] = kmeans.centres(raw, self.indices[name], self.codes[name])

    def penalty(self, state: train.State) -> Tensor:
        """lambda_reg sum_i sigma_i while it acts (section 3.1.3, "Opacity Regularization"), else 0."""
        settings = self.settings
        if settings.penalty and settings.penalty_start < state.iteration <= settings.penalty_end:
            return settings.penalty * state.gaussians.opacities.sigmoid().sum()
        return state.gaussians.opacities.new_zeros(())

    def after(self, state: train.State) -> None:
        """Prune what the penalty has made invisible; those that remain keep their codes until the next assignment."""
        s, iteration = self.settings, state.iteration
        inside = s.penalty_start < iteration <= s.penalty_end
        if not (s.penalty and inside and (iteration - s.penalty_start) % s.prune_interval == 0):
            return
        kept, origin = prune(state.gaussians, s.least_opacity)
        if len(origin) < len(state.gaussians):
            state.replace(kept, origin)
            self.indices = {name: indices[origin] for name, indices in self.indices.items()}
            self._due = bool(self.indices)

    def finish(self, gaussians: Gaussians) -> Compressed:
        """The compressed scene of trained parameters: codes are the means of their members, indices stay.

        Where fewer Gaussians are left than there are codes, those that nobody uses are left out.
        """
        if self.settings.books and not self.codes:
            raise EffbookError("training ended before quantisation began", "lower start or train longer")
        found = []
        for book in self.settings.books:
            name = book.parameters
            codes, indices = self.codes[name], self.indices[name]
            if name not in self.frozen:
                codes = kmeans.centres(joined(gaussians, name), indices, codes)
                if len(codes) > len(gaussians):
                    used, indices = indices.unique(return_inverse=True)
                    codes = codes[used]
            found.append((name, codes.detach().clone(), indices))
        return _compressed(gaussians, found)


def _compressed(gaussians: Gaussians, coded: Sequence[tuple[tuple[str, ...], Tensor, Tensor]]) -> Compressed:
    """Put (parameters, codes, indices) and what is kept plain together."""
    books = tuple(Codebook(parameters=p, codes=c, indices=i.to(index_type(len(c)))) for p, c, i in coded)
    named = {name for book in books for name in book.parameters}
    plain = {name: t.detach().clone() for name, t in gaussians.tensors().items() if name not in named}
    return Compressed(codebooks=books, plain=plain)


def _check(gaussians: Gaussians, wanted: Sequence[Book], *, most: int | None) -> None:
    """Before any work: are all values finite, and is no codebook larger than the Gaussians that there can be?"""
    gaussians.check_finite()
    for book in wanted:
        if most is not None and book.codes > most:
            raise EffbookError(
                f"a codebook of {book.codes:,} codes is larger than the {most:,} Gaussians", "choose a smaller codebook"
            )


def fit(
    gaussians: Gaussians,
    cameras: Sequence[Camera],
    images: Sequence[Tensor],  # [H, W, 3] in [0, 1]
    training: train.TrainSettings,
    settings: CompGSSettings,
    *,
    extent: float,
    frozen: Mapping[tuple[str, ...], Tensor] | None = None,
    **hooks,
) -> Compressed:
    """Train a scene with quantisation and the opacity penalty, and return it compressed.

    `hooks` go on to `gaussians.train.fit` (`watch`). Without books the penalty acts alone. Raises EffbookError for
    values that are not finite, and where quantisation would not start before the end, where densification would go on
    while it runs, or where a codebook is larger than the number of Gaussians can become.
    """
    density, n = training.density, len(gaussians)
    grows = min(density.end, training.iterations + 1) > density.start + 1
    most = n if not grows else None if density.most is None else max(density.most, n)
    _check(gaussians, [book for book in settings.books if book.parameters not in (frozen or {})], most=most)
    if settings.books and settings.start > training.iterations:
        raise EffbookError(
            f"quantisation starts at {settings.start:,} of {training.iterations:,} iterations", "lower start"
        )
    if settings.books and density.end > settings.start:
        raise EffbookError(
            f"densification ends at {density.end:,}, after quantisation starts at {settings.start:,}",
            "let it end first: new Gaussians have no code",
        )
    quantiser = Quantiser(settings, frozen=frozen)
    trained = train.fit(
        gaussians,
        cameras,
        images,
        training,
        extent=extent,
        before=quantiser.before,
        penalty=quantiser.penalty,
        after=quantiser.after,
        **hooks,
    )
    return quantiser.finish(trained)


def compress(gaussians: Gaussians, settings: CompGSSettings, *, iterations: int = 10) -> Compressed:
    """Cluster a trained scene without training on ("post-train K-means"): smaller at once, with a loss of quality.

    Raises EffbookError for values that are not finite, a negative number of iterations, and a codebook of more codes
    than there are Gaussians.
    """
    if iterations < 0:
        raise EffbookError(f"{iterations} rounds of K-means", "give 0 or more")
    _check(gaussians, settings.books, most=len(gaussians))
    generator = torch.Generator().manual_seed(settings.seed)
    found = []
    for book in settings.books:
        values = joined(gaussians, book.parameters).detach()
        codes, indices = kmeans.cluster(values, book.codes, iterations=iterations, generator=generator)
        found.append((book.parameters, codes, indices))
    return _compressed(gaussians, found)
