"""The `.compgs` file: a compressed scene in the bytes that the dissertation counts, or fewer.

    magic 8, version 2, length of the header 4, header (JSON), CRC-32 4
    sections: length 8, coding 1, payload, CRC-32 4 (of all three)

The header (`layout.Header`) says how many Gaussians and codebooks there are and in how many bits each thing is kept;
from that follows which sections come and how long each one is when decoded. First come the codebooks' codes; then how
often each code of one index occurs; then the Gaussians, `ROWS` at a time, sorted by that index. An index of K codes has
ceil(log2 K) bits.

The codes of the index that is sorted by come in the order of their use. How often each one occurs, then, is a falling
row of numbers, and kept as pairs: a number, and how many codes have it. That takes a few kilobytes, where a number for
each of 32,768 codes would not fit into what the dissertation prints. When read, those codes are put in ascending
order, so that a codebook which scenes share is the same in both.

With `entropy`, more is made of the order: of two Gaussians with the same first code the one with the smaller second
code comes first, and of the second index only the differences are kept. Numbers are laid out byte by byte (exponents
beside exponents) and compressed by Zstandard, section by section, wherever that makes a section smaller.

Nothing is trusted: before anything is allocated, all lengths are checked against the file's size, and the scene must
take at most 1024 times the file's bytes in memory; what is read is allocated as it comes, and all bytes are under a
checksum. A scene of which anything is kept plain is never beyond that limit. There is no pickle.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from effbook.compgs.bits import absmax, bits_for, counted, sorted_by
from effbook.compgs.config import PACKED, Storage
from effbook.compgs.layout import (
    MOST_RATIO,
    MOST_ROWS,
    VERSION,
    Book,
    Header,
    Plain,
    differences,
    section,
    to_numbers,
)
from effbook.compgs.model import Codebook, Compressed
from effbook.compgs.reader import Reader
from effbook.errors import EffbookError
from effbook.gaussians.formats.place import replacing
from effbook.gaussians.model import Gaussians

ROWS = MOST_ROWS  # Gaussians in a group of sections


# --- writing -------------------------------------------------------------------------------------------------------


def write(scene: Compressed, path: Path | str, storage: Storage = PACKED) -> int:
    """Write a scene and return the file's bytes; an existing file is replaced only when the new one is complete.

    The order of the Gaussians changes, and that of the codes which they are sorted by. Apart from the order, 8 bytes a
    Gaussian, what is needed beside the scene is the memory of the codebooks and of one group of rows: tensors may be
    mapped from disk. Raises EffbookError for values that are not finite, for an index beyond its codebook, and for a
    scene that would take more than 1024 times the file's bytes in memory.
    """
    scene = scene.to("cpu")
    _check(scene)
    plain, books = _steps(scene, storage)
    order = _Order(scene, entropy=storage.entropy)
    header = Header(
        gaussians=len(scene), rows=ROWS, plain=plain, books=books, first=order.first, second=order.second,
        runs=len(order.lengths), entropy=storage.entropy,
    )  # fmt: skip
    with replacing(Path(path)) as out:
        head = out.write(header.to_bytes())
        size = sum(out.write(section(*payload, storage.entropy)) for payload in _payloads(scene, header, order))
        if header.decoded_bytes() > MOST_RATIO * size:
            raise EffbookError(
                f"{len(scene):,} Gaussians in {size:,} bytes are more than {MOST_RATIO:,} times as large in memory",
                "keep a parameter plain",
            )
    return head + size


def _check(scene: Compressed) -> None:
    if not 1 <= len(scene) < 2**32:
        raise EffbookError(f"the scene has {len(scene):,} Gaussians", "give at least one and less than 2^32")
    for book in scene.codebooks:
        index = book.indices.numpy()
        low, high = int(index.min()), int(index.max())
        if low < 0 or high >= len(book.codes):
            raise EffbookError(
                f"{' and '.join(book.parameters)} have indices from {low:,} to {high:,} into {len(book.codes):,} codes",
                "assign the Gaussians again",
            )


class _Order:
    """The Gaussians sorted: by the book with the widest index, and by the second widest where that is of use."""

    def __init__(self, scene: Compressed, *, entropy: bool) -> None:
        self.first = self.second = None
        self.use = self.lengths = self.shared_by = np.zeros(0, np.int64)
        self._rows: np.ndarray | None = None  # 4 bytes a Gaussian, twice that while sorting
        books = scene.codebooks
        wide = sorted(range(len(books)), key=lambda i: -bits_for(len(books[i].codes)))
        if not wide:
            return
        rows = np.arange(len(scene), dtype=np.uint32)
        if entropy and len(wide) > 1:
            self.second = wide[1]
            index = books[self.second].indices.numpy()
            often = counted(index, len(books[self.second].codes))
            rows = sorted_by(index, np.cumsum(often) - often, rows)
        self.first = wide[0]
        index = books[self.first].indices.numpy()
        often = counted(index, len(books[self.first].codes))  # [K]
        self.use = np.argsort(-often, kind="stable")  # codes from the most to the least used
        starts = np.empty_like(often)
        starts[self.use] = np.cumsum(often[self.use]) - often[self.use]
        self._rows = sorted_by(index, starts, rows)
        lengths, shared_by = np.unique(often, return_counts=True)
        self.lengths, self.shared_by = lengths[::-1], shared_by[::-1]

    def rows(self, start: int, end: int) -> slice | np.ndarray:
        return slice(start, end) if self._rows is None else self._rows[start:end].astype(np.int64)


def _steps(scene: Compressed, storage: Storage) -> tuple[list[Plain], list[Book]]:
    def step(tensor: torch.Tensor, bits: int) -> float:
        ends = np.array([float(end) for end in torch.aminmax(tensor)])  # NaN goes through, and nothing is allocated
        if not np.isfinite(ends).all():
            raise EffbookError("the model has values that are not finite", "remove those Gaussians or train again")
        return 1.0 if bits == 32 else absmax(ends, bits)[1]

    bits_of = {name: storage.plain_bits.get(name, 32) for name in scene.plain}
    plain = [Plain(parameter=name, bits=bits_of[name], step=step(t, bits_of[name])) for name, t in scene.plain.items()]
    kept = storage.code_bits
    return plain, [
        Book(parameters=list(b.parameters), codes=len(b.codes), bits=kept, step=step(b.codes, kept))
        for b in scene.codebooks
    ]


def _payloads(scene: Compressed, header: Header, order: _Order) -> Iterator[tuple[np.ndarray, int]]:
    """The numbers of each section, and in how many bits."""
    for i, (book, told) in enumerate(zip(scene.codebooks, header.books, strict=True)):
        codes = book.codes.numpy()
        yield to_numbers(codes[order.use] if i == header.first else codes, told.bits, told.step), told.bits
    if header.first is not None:
        yield np.stack([order.lengths, order.shared_by], axis=1).ravel(), 32
    for start in range(0, header.gaussians, header.rows):
        rows = order.rows(start, start + header.rows)
        for told in header.plain:
            yield to_numbers(scene.plain[told.parameter].numpy()[rows], told.bits, told.step), told.bits
        for i, book in enumerate(scene.codebooks):
            if i == header.first:
                continue
            index = book.indices.numpy()[rows].astype(np.int64)
            if i == header.second:
                index = differences(index, scene.codebooks[header.first].indices.numpy()[rows])
            yield index, bits_for(len(book.codes))


# --- reading -------------------------------------------------------------------------------------------------------


def read(path: Path | str) -> Compressed:
    """Read a scene. Raises EffbookError for anything that `write` would not have written."""
    with Reader(Path(path)) as reader:
        header = reader.header
        plain: dict[str, list[torch.Tensor]] = {told.parameter: [] for told in header.plain}
        indices: list[list[torch.Tensor]] = [[] for _ in header.books]
        for found, index in reader.groups():
            for name, parts in plain.items():
                parts.append(found[name])
            for parts, values in zip(indices, index, strict=True):
                parts.append(values)
        books = zip(header.books, reader.codes, map(_joined, indices), strict=True)
        return Compressed(
            codebooks=tuple(Codebook(parameters=tuple(t.parameters), codes=c, indices=i) for t, c, i in books),
            plain={name: _joined(parts) for name, parts in plain.items()},
        )


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    """The parts as one tensor; they are let go at once."""
    whole = torch.cat(parts)
    parts.clear()
    return whole


def read_parts(path: Path | str) -> Iterator[Gaussians]:
    """The Gaussians of a file as an ordinary model, some rows at a time: for scenes larger than the memory."""
    with Reader(Path(path)) as reader:
        for plain, indices in reader.groups():
            books = tuple(
                Codebook(parameters=tuple(told.parameters), codes=codes, indices=index)
                for told, codes, index in zip(reader.header.books, reader.codes, indices, strict=True)
            )
            yield Compressed(codebooks=books, plain=plain).decode()


def describe(path: Path | str) -> dict:
    """What a file's header tells, with the file's bytes; nothing else is read."""
    with Reader(Path(path)) as reader:
        return {"version": VERSION, "bytes": reader.size, **reader.header.model_dump()}
