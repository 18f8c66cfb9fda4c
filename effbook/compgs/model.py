"""A compressed scene: codebooks, one index a Gaussian into each, and the parameters that are kept as they are."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from effbook.errors import EffbookError
from effbook.gaussians.model import Gaussians
from effbook.gaussians.parameters import SH_REST, SHAPES, width

ROWS_AT_ONCE = 1 << 16


def index_type(codes: int) -> torch.dtype:
    """The smallest type that holds an index into so many codes and that torch can compute with."""
    return torch.uint8 if codes <= 2**8 else torch.int16 if codes <= 2**15 else torch.int32


@dataclass(kw_only=True, eq=False)
class Codebook:
    """Codes for one or several parameters of a Gaussian, side by side, and which one each Gaussian uses.

    Indices may be of any whole type; those that are read or trained are of the smallest (`index_type`).
    """

    parameters: tuple[str, ...]
    codes: Tensor  # [K, D]
    indices: Tensor  # [N], whole numbers below K


@dataclass(kw_only=True, eq=False)
class Compressed:
    """N Gaussians with some parameters from codebooks and the others `plain`; what is in neither is zero.

    Only `sh_rest` may be in neither (the No-SH variant). Raises EffbookError if a parameter is missing or given twice,
    or if shapes disagree.
    """

    codebooks: tuple[Codebook, ...]
    plain: dict[str, Tensor]  # parameter -> [N, ...]

    def __post_init__(self) -> None:
        given = [name for book in self.codebooks for name in book.parameters] + list(self.plain)
        if twice := {name for name in given if given.count(name) > 1}:
            raise EffbookError(f"{', '.join(sorted(twice))} is given twice", "give each parameter once")
        if unknown := set(given) - set(SHAPES):
            raise EffbookError(f"{', '.join(sorted(unknown))} is no parameter of a Gaussian", f"choose of {[*SHAPES]}")
        if missing := set(SHAPES) - set(given) - {"sh_rest"}:
            raise EffbookError(f"the model lacks {', '.join(sorted(missing))}", "give it plain or as a codebook")
        n = len(self)
        for name, tensor in self.plain.items():
            if tuple(tensor.shape) != (n, *SHAPES[name]):
                raise EffbookError(f"{name} has the shape {tuple(tensor.shape)}", f"give {(n, *SHAPES[name])}")
        for book in self.codebooks:
            wanted = sum(width(name) for name in book.parameters)
            if book.codes.ndim != 2 or book.codes.shape[1] != wanted or book.indices.shape != (n,):
                raise EffbookError(
                    f"the codebook of {' and '.join(book.parameters)} has codes {tuple(book.codes.shape)} and indices "
                    f"{tuple(book.indices.shape)}",
                    f"give [K, {wanted}] and [{n}]",
                )

    def __len__(self) -> int:
        return len(self.codebooks[0].indices) if self.codebooks else len(next(iter(self.plain.values())))

    def rows(self, chosen: slice | Tensor) -> Gaussians:
        """Some of the Gaussians with all their parameters."""
        found = {name: tensor[chosen] for name, tensor in self.plain.items()}
        for book in self.codebooks:
            found.update(split(book.codes[book.indices[chosen].long()], book.parameters))
        if "sh_rest" not in found:
            found["sh_rest"] = found["means"].new_zeros(len(found["means"]), SH_REST, 3)
        return Gaussians(**{name: found[name] for name in SHAPES})

    def decode(self) -> Gaussians:
        """An ordinary model, which draws the same pictures and takes 236 bytes a Gaussian."""
        return self.rows(slice(None))

    def parts(self, rows: int = ROWS_AT_ONCE) -> Iterator[Gaussians]:
        """The ordinary model, some rows at a time: what drawing and exporting need."""
        for start in range(0, len(self), rows):
            yield self.rows(slice(start, start + rows))

    def to(self, device: torch.device | str) -> "Compressed":
        """The same scene on another device."""
        books = tuple(
            Codebook(parameters=book.parameters, codes=book.codes.to(device), indices=book.indices.to(device))
            for book in self.codebooks
        )
        return Compressed(codebooks=books, plain={name: tensor.to(device) for name, tensor in self.plain.items()})

    def bytes_at_rest(self) -> int:
        """Bytes of the tensors in memory."""
        tensors = [*self.plain.values(), *(t for book in self.codebooks for t in (book.codes, book.indices))]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def joined(gaussians: Gaussians, parameters: tuple[str, ...]) -> Tensor:
    """Parameters of a model side by side, [N, D]."""
    return torch.cat([getattr(gaussians, name).reshape(len(gaussians), -1) for name in parameters], dim=1)


def split(values: Tensor, parameters: tuple[str, ...]) -> dict[str, Tensor]:
    """The inverse of `joined`: values [N, D] to each parameter's [N, ...]."""
    parts = values.split([width(name) for name in parameters], dim=1)
    return {name: part.reshape(-1, *SHAPES[name]) for name, part in zip(parameters, parts, strict=True)}
