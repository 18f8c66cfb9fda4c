"""The `.compgs` file: a compressed scene in the bytes that the dissertation counts, or fewer.

    magic 8, version 2, length of the header 4, header (JSON), CRC-32 4
    sections: length 8, coding 1, payload, CRC-32 4 (of all three)

The header says how many Gaussians and codebooks there are and in how many bits each thing is kept; from that follows
which sections come and how long each one is when decoded. First come the codebooks' codes; then how often each code of
one index occurs; then the Gaussians, `ROWS` at a time, sorted by that index. An index of K codes has ceil(log2 K)
bits.

With `entropy`, more is made of the order: of two Gaussians with the same first code the one with the smaller second
code comes first, and of the second index only the differences are kept. Numbers are laid out byte by byte (exponents
beside exponents) and compressed by Zstandard, section by section, wherever that makes a section smaller.

Nothing is trusted: all lengths are checked against the file's size before anything is allocated, and all bytes are
under a checksum. There is no pickle.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from effbook.compgs.bits import absmax, bits_for, from_absmax, pack, packed_bytes, unpack
from effbook.compgs.model import SHAPES, Codebook, Compressed, width
from effbook.errors import EffbookError
from effbook.gaussians.formats.ply import replacing
from effbook.gaussians.model import Gaussians

MAGIC = b"\x89CompGS\n"
VERSION = 1
ROWS = 1 << 16  # Gaussians in a group of sections
MOST_HEADER = 1 << 16
MOST_RATIO = 1024  # a section never grows more than this when decoded; what would is stored as it is
AS_IT_IS, ZSTANDARD = 0, 1
LEVEL = 1  # of Zstandard: higher ones gain a percent and cost ten times the time

Bits = Literal[4, 8, 16, 32]
Parameter = Literal["means", "sh_dc", "sh_rest", "opacities", "scales", "rotations"]


@dataclass(frozen=True, kw_only=True)
class Storage:
    """In how many bits the parts are kept: 32 are floats, fewer are whole numbers by absmax quantisation.

    BIT_QUANTISED is the dissertation's BitQ: positions in 16 bits, opacities in 8.
    """

    plain_bits: dict[str, Bits] = field(default_factory=dict)  # by parameter; 32 if not named
    code_bits: Bits = 32
    entropy: bool = False

    def __post_init__(self) -> None:
        if unknown := set(self.plain_bits) - set(SHAPES):
            raise EffbookError(f"{sorted(unknown)} is no parameter of a Gaussian", f"choose of {', '.join(SHAPES)}")
        if not {self.code_bits, *self.plain_bits.values()} <= {4, 8, 16, 32}:
            raise EffbookError("a number of bits is not 4, 8, 16 or 32", "choose one of them")


PACKED = Storage()
BIT_QUANTISED = Storage(plain_bits={"means": 16, "opacities": 8})


def int_x(bits: Bits, *, positions: bool = True) -> Storage:
    """The dissertation's baselines Int-16, Int-8, Int-4, with or without ("no-pos") the positions."""
    named: dict[str, Bits] = {name: bits for name in SHAPES if positions or name != "means"}
    return Storage(plain_bits=named, code_bits=bits)


# --- the header ----------------------------------------------------------------------------------------------------

Count = Annotated[int, Field(ge=1, le=2**40)]
Step = Annotated[float, Field(gt=0, lt=1e30, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Plain(_Strict):
    parameter: Parameter
    bits: Bits
    step: Step = 1.0


class _Book(_Strict):
    parameters: Annotated[list[Parameter], Field(min_length=1, max_length=6)]
    codes: Annotated[int, Field(ge=1, le=2**31)]
    bits: Bits
    step: Step = 1.0

    @property
    def width(self) -> int:
        return sum(width(name) for name in self.parameters)


class _Header(_Strict):
    gaussians: Count
    rows: Annotated[int, Field(ge=1, le=2**20)]
    plain: Annotated[list[_Plain], Field(max_length=6)]
    books: Annotated[list[_Book], Field(max_length=6)]
    first: int | None  # the book whose index the Gaussians are sorted by
    second: int | None  # the book whose index is kept as differences
    entropy: bool
    run_bits: Annotated[int, Field(ge=0, le=40)]

    def all_bytes(self) -> int:
        """What all sections have when packed, without walking through them: a claim of gigabytes costs no time."""
        whole, rest = divmod(self.gaussians, self.rows)
        total = sum(packed_bytes(b.codes * b.width, b.bits) for b in self.books)
        if self.first is not None:
            total += packed_bytes(self.books[self.first].codes, self.run_bits)
        for n, times in ((self.rows, whole), (rest, 1)):
            total += times * sum(packed_bytes(n * width(p.parameter), p.bits) for p in self.plain)
            others = (b for i, b in enumerate(self.books) if i != self.first)
            total += times * sum(packed_bytes(n, bits_for(b.codes)) for b in others)
        return total

    def count(self) -> int:
        """How many sections there are."""
        groups = -(-self.gaussians // self.rows)
        each = len(self.plain) + len(self.books) - (self.first is not None)
        return len(self.books) + (self.first is not None) + groups * each


# --- writing -------------------------------------------------------------------------------------------------------


def write(scene: Compressed, path: Path | str, storage: Storage = PACKED) -> int:
    """Write a scene and return the file's bytes; an existing file is replaced only when the new one is complete.

    The Gaussians' order changes. Apart from that order, 8 bytes a Gaussian, what is needed beside the scene is the
    memory of one group of rows: tensors may be mapped from disk. Raises EffbookError for values that are not finite.
    """
    scene = scene.to("cpu")
    first, second, order, runs = _order(scene, entropy=storage.entropy)
    plain, books = _steps(scene, storage)
    header = _Header(
        gaussians=len(scene), rows=ROWS, plain=plain, books=books, first=first, second=second, entropy=storage.entropy,
        run_bits=0 if runs is None else max(int(runs.max()).bit_length(), 1),
    )  # fmt: skip
    told = header.model_dump_json().encode("ascii")
    head = MAGIC + VERSION.to_bytes(2, "little") + len(told).to_bytes(4, "little") + told
    with replacing(Path(path)) as out:
        size = out.write(head + zlib.crc32(head).to_bytes(4, "little"))
        for payload, lanes in _payloads(scene, header, order, runs):
            size += out.write(_section(payload, lanes, storage.entropy))
    return size


def _order(scene: Compressed, *, entropy: bool) -> tuple:
    """The books of the first and the second index, the order of the Gaussians, and how often each first code occurs."""
    if not scene.codebooks:
        return None, None, None, None
    wide = sorted(range(len(scene.codebooks)), key=lambda i: -bits_for(len(scene.codebooks[i].codes)))
    first, second = wide[0], wide[1] if entropy and len(wide) > 1 else None
    key = scene.codebooks[first].indices.numpy().astype(np.int64)
    runs = np.bincount(key, minlength=len(scene.codebooks[first].codes))
    if second is not None:
        key = key * len(scene.codebooks[second].codes) + scene.codebooks[second].indices.numpy()
    return first, second, np.argsort(key, kind="stable"), runs


def _steps(scene: Compressed, storage: Storage) -> tuple[list[_Plain], list[_Book]]:
    def step(tensor: torch.Tensor, bits: int) -> float:
        if bits == 32:
            if not torch.isfinite(tensor).all():
                raise EffbookError("the model has values that are not finite", "remove those Gaussians or train again")
            return 1.0
        return absmax(np.asarray([float(tensor.min()), float(tensor.max())]), bits)[1]

    bits_of = {name: storage.plain_bits.get(name, 32) for name in scene.plain}
    plain = [_Plain(parameter=name, bits=bits_of[name], step=step(t, bits_of[name])) for name, t in scene.plain.items()]
    kept = storage.code_bits
    return plain, [
        _Book(parameters=list(b.parameters), codes=len(b.codes), bits=kept, step=step(b.codes, kept))
        for b in scene.codebooks
    ]


def _payloads(scene: Compressed, header: _Header, order, runs) -> Iterator[tuple[np.ndarray, int]]:
    """The numbers of each section, and in how many bits."""
    for book, told in zip(scene.codebooks, header.books, strict=True):
        yield _to_numbers(book.codes.numpy(), told.bits, told.step), told.bits
    if runs is not None:
        yield runs, header.run_bits
    for start in range(0, header.gaussians, header.rows):
        rows = slice(start, start + header.rows) if order is None else order[start : start + header.rows]
        for told in header.plain:
            yield _to_numbers(scene.plain[told.parameter][rows].numpy(), told.bits, told.step), told.bits
        for i, book in enumerate(scene.codebooks):
            if i == header.first:
                continue
            index = book.indices[rows].numpy().astype(np.int64)
            if i == header.second:
                leader = scene.codebooks[header.first].indices[rows].numpy()
                index = np.where(_starts(leader), index, index - np.concatenate([[0], index[:-1]]))
            yield index, bits_for(len(book.codes))


def _starts(leader: np.ndarray) -> np.ndarray:
    """Where a run of equal first codes begins; the first row of a group always does."""
    return np.concatenate([[True], leader[1:] != leader[:-1]])


def _to_numbers(values: np.ndarray, bits: int, step: float) -> np.ndarray:
    """Floats [N, ...] as whole numbers, coordinate by coordinate: like beside like."""
    values = np.ascontiguousarray(values.reshape(len(values), -1).T).ravel()
    if bits == 32:
        return values.astype("<f4").view("<u4")
    return (np.rint(values.astype(np.float64) / step) + (2 ** (bits - 1) - 1)).astype(np.uint32)


def _to_floats(numbers: np.ndarray, n: int, bits: int, step: float) -> np.ndarray:
    """The inverse of `_to_numbers`, [N, D]."""
    values = numbers.view("<f4") if bits == 32 else from_absmax(numbers, step, bits)
    return np.ascontiguousarray(values.reshape(-1, n).T)


def _section(numbers: np.ndarray, bits: int, entropy: bool) -> bytes:
    payload, coding = pack(numbers, bits).tobytes(), AS_IT_IS
    if entropy and payload:
        small = _compressed(numbers, bits)
        if len(small) < len(payload) <= MOST_RATIO * len(small):
            payload, coding = small, ZSTANDARD
    told = len(payload).to_bytes(8, "little") + bytes([coding]) + payload
    return told + zlib.crc32(told).to_bytes(4, "little")


def _compressed(numbers: np.ndarray, bits: int) -> bytes:
    """The lowest bytes of all numbers, then the second lowest..., each plane as its length and a Zstandard frame."""
    import zstandard

    out = []
    for plane in range(-(-bits // 8)):
        frame = zstandard.ZstdCompressor(level=LEVEL).compress((numbers >> (8 * plane)).astype(np.uint8).tobytes())
        out += [len(frame).to_bytes(4, "little"), frame]
    return b"".join(out)


# --- reading -------------------------------------------------------------------------------------------------------


def read(path: Path | str) -> Compressed:
    """Read a scene. Raises EffbookError for anything that `write` would not have written."""
    with _Reader(Path(path)) as reader:
        header = reader.header
        plain = {told.parameter: torch.empty(header.gaussians, *SHAPES[told.parameter]) for told in header.plain}
        indices = [torch.empty(header.gaussians, dtype=torch.int32) for _ in header.books]
        for start, found, index in reader.groups():
            rows = slice(start, start + header.rows)
            for name, tensor in plain.items():
                tensor[rows] = found[name]
            for tensor, values in zip(indices, index, strict=True):
                tensor[rows] = values
        books = zip(header.books, reader.codes, indices, strict=True)
        return Compressed(
            codebooks=tuple(Codebook(parameters=tuple(t.parameters), codes=c, indices=i) for t, c, i in books),
            plain=plain,
        )


def read_parts(path: Path | str) -> Iterator[Gaussians]:
    """The Gaussians of a file as an ordinary model, some rows at a time: for scenes larger than the memory."""
    with _Reader(Path(path)) as reader:
        for _, plain, indices in reader.groups():
            books = tuple(
                Codebook(parameters=tuple(told.parameters), codes=codes, indices=index)
                for told, codes, index in zip(reader.header.books, reader.codes, indices, strict=True)
            )
            yield Compressed(codebooks=books, plain=plain).decode()


def describe(path: Path | str) -> dict:
    """What a file's header tells, with the file's bytes; nothing else is read."""
    path = Path(path)
    with _Reader(path) as reader:
        return {"version": VERSION, "bytes": path.stat().st_size, **reader.header.model_dump()}


class _Reader:
    """An open file whose header is checked: codes first, then groups of rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise EffbookError(f"{path} cannot be read ({error.strerror})", "name a file that is there") from None

    def __enter__(self) -> "_Reader":
        try:
            self.size = self.path.stat().st_size
            self._left = self.size
            self.header = self._read_header()
            self._check_lengths()
            self.codes = []
            for told in self.header.books:
                numbers = self._section(told.codes * told.width, told.bits)
                codes = _to_floats(numbers, told.codes, told.bits, told.step)
                self.codes.append(self._finite(torch.from_numpy(codes)))
            self._ends = self._read_runs()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def groups(self) -> Iterator[tuple[int, dict[str, torch.Tensor], list[torch.Tensor]]]:
        """(first row, plain parameters, indices) of each group."""
        header = self.header
        for start in range(0, header.gaussians, header.rows):
            n = min(header.rows, header.gaussians - start)
            plain = {}
            for told in header.plain:
                wide = width(told.parameter)
                numbers = self._section(n * wide, told.bits)
                values = torch.from_numpy(_to_floats(numbers, n, told.bits, told.step))
                plain[told.parameter] = self._finite(values).reshape(n, *SHAPES[told.parameter])
            indices: list[np.ndarray | None] = [None] * len(header.books)
            if header.first is not None:
                indices[header.first] = np.searchsorted(self._ends, np.arange(start, start + n), side="right")
            for i, told in enumerate(header.books):
                if i == header.first:
                    continue
                index = self._section(n, bits_for(told.codes)).astype(np.int64)
                if i == header.second:
                    index = _undo_differences(index, indices[header.first])
                if int(index.max()) >= told.codes:
                    raise self._broken("an index beyond its codebook")
                indices[i] = index
            yield start, plain, [torch.from_numpy(index.astype(np.int32)) for index in indices]
        if self._left:
            raise self._broken(f"{self._left} bytes too many")

    def _read_header(self) -> _Header:
        head = self._bytes(14)
        if head[:8] != MAGIC:
            raise EffbookError(f"{self.path} is no .compgs file", "name one that effbook.compgs wrote")
        version, length = int.from_bytes(head[8:10], "little"), int.from_bytes(head[10:14], "little")
        if version != VERSION:
            raise EffbookError(f"{self.path} has version {version}, this reads version {VERSION}", "update effbook")
        if length > MOST_HEADER:
            raise self._broken(f"a header of {length:,} bytes")
        told, check = self._bytes(length), self._bytes(4)
        if zlib.crc32(head + told).to_bytes(4, "little") != check:
            raise self._broken("a changed header")
        try:
            return _Header.model_validate_json(told)
        except ValidationError as error:
            raise self._broken(f"a header that makes no sense ({error.errors()[0]['msg']})") from None

    def _check_lengths(self) -> None:
        """Before anything is allocated: can the file hold what the header claims?"""
        header, books = self.header, len(self.header.books)
        named = [name for book in header.books for name in book.parameters] + [part.parameter for part in header.plain]
        if len(set(named)) < len(named) or set(SHAPES) - set(named) - {"sh_rest"}:
            raise self._broken("parameters that are missing or there twice")
        if not (header.first is None) == (books == 0) or not (header.first or 0) < max(books, 1):
            raise self._broken("no index to sort by")
        if header.second is not None and (header.second == header.first or not header.second < books):
            raise self._broken("no second index")
        claimed, framing = header.all_bytes(), 13 * header.count()
        fits = claimed + framing == self._left
        if header.entropy:
            fits = framing <= self._left and claimed <= MOST_RATIO * self._left
        if not fits:
            raise EffbookError(
                f"{self.path} claims {header.gaussians:,} Gaussians and has {self.size:,} bytes, which does not fit",
                "copy or write it again",
            )

    def _read_runs(self) -> np.ndarray | None:
        """Where in the order of the Gaussians each first code ends."""
        if self.header.first is None:
            return None
        runs = self._section(self.header.books[self.header.first].codes, self.header.run_bits).astype(np.int64)
        if int(runs.sum()) != self.header.gaussians:
            raise self._broken("run lengths that do not add up")
        return np.cumsum(runs)

    def _section(self, n: int, bits: int) -> np.ndarray:
        """The next n numbers, uint32."""
        head = self._bytes(9)
        length, coding = int.from_bytes(head[:8], "little"), head[8]
        if length > self._left:
            raise self._broken("an end in the middle of a section")
        payload, check = self._bytes(length), self._bytes(4)
        if zlib.crc32(payload, zlib.crc32(head)).to_bytes(4, "little") != check:
            raise self._broken("a changed section")
        if coding == AS_IT_IS and length == packed_bytes(n, bits):
            return unpack(np.frombuffer(payload, np.uint8), n, bits)
        if coding == ZSTANDARD and self.header.entropy:
            return self._decompressed(payload, n, bits)
        raise self._broken("a section of the wrong length")

    def _decompressed(self, payload: bytes, n: int, bits: int) -> np.ndarray:
        import zstandard

        numbers, at = np.zeros(n, np.uint32), 0
        for plane in range(-(-bits // 8)):
            length = int.from_bytes(payload[at : at + 4], "little")
            frame = payload[at + 4 : at + 4 + length]
            try:
                if zstandard.frame_content_size(frame) != n:
                    raise self._broken("a section of the wrong length")
                found = zstandard.ZstdDecompressor().decompress(frame)
            except zstandard.ZstdError:
                raise self._broken("a section that cannot be decompressed") from None
            numbers |= np.frombuffer(found, np.uint8).astype(np.uint32) << (8 * plane)
            at += 4 + length
        if at != len(payload) or (bits % 8 and int(numbers.max(initial=0)) >> bits):
            raise self._broken("a section of the wrong length")
        return numbers

    def _finite(self, values: torch.Tensor) -> torch.Tensor:
        if not torch.isfinite(values).all():
            raise self._broken("values that are not finite")
        return values

    def _bytes(self, n: int) -> bytes:
        found = self._file.read(n)
        if len(found) < n:
            raise self._broken("an end too early")
        self._left -= n
        return found

    def _broken(self, what: str) -> EffbookError:
        return EffbookError(f"{self.path} is broken: it has {what}", "copy or write it again")


def _undo_differences(steps: np.ndarray, leader: np.ndarray) -> np.ndarray:
    """Sum up again within each run of equal first codes."""
    sums, starts = np.cumsum(steps), np.flatnonzero(_starts(leader))
    before = np.concatenate([[0], sums])[starts]
    return sums - np.repeat(before, np.diff(np.append(starts, len(steps))))
