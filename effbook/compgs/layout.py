"""What a `.compgs` file is made of: the header, and sections of whole numbers. `container` has the file as a whole."""

import zlib
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from effbook.compgs.bits import bits_for, from_absmax, pack, packed_bytes, unpack
from effbook.compgs.config import Bits
from effbook.compgs.model import index_type
from effbook.gaussians.parameters import SHAPES, width

MAGIC = b"\x89CompGS\n"
VERSION = 2
MOST_ROWS = 1 << 16
MOST_HEADER = 1 << 16
MOST_RATIO = 1024  # of what a scene takes in memory to its file
SECTION_RATIO = 32  # of a section's numbers to its compressed bytes; zeros are added where it would be more
AS_IT_IS, ZSTANDARD = 0, 1
LEVEL = 1  # of Zstandard: higher ones gain a percent and cost ten times the time

Parameter = Literal["means", "sh_dc", "sh_rest", "opacities", "scales", "rotations"]
Step = Annotated[float, Field(gt=0, lt=1e30, allow_inf_nan=False)]
Which = Annotated[int, Field(ge=0, le=5)]


class Broken(Exception):
    """A file has something that no writer writes; the text goes on from "it has"."""


# --- the header ----------------------------------------------------------------------------------------------------


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Plain(_Strict):
    """A parameter that each Gaussian has for itself."""

    parameter: Parameter
    bits: Bits
    step: Step = 1.0


class Book(_Strict):
    """A codebook."""

    parameters: Annotated[list[Parameter], Field(min_length=1, max_length=6)]
    codes: Annotated[int, Field(ge=1, le=2**30)]
    bits: Bits
    step: Step = 1.0

    @property
    def width(self) -> int:
        """Values a code."""
        return sum(width(name) for name in self.parameters)


class Header(_Strict):
    """From it follows which sections come and how many numbers each has."""

    gaussians: Annotated[int, Field(ge=1, lt=2**32)]
    rows: Annotated[int, Field(ge=1, le=MOST_ROWS)]
    plain: Annotated[list[Plain], Field(max_length=6)]
    books: Annotated[list[Book], Field(max_length=6)]
    first: Which | None  # the book whose index the Gaussians are sorted by
    second: Which | None  # the book whose index is kept as differences
    runs: Annotated[int, Field(ge=0, le=2**17)]  # different numbers of Gaussians that share a code of the first book
    entropy: bool

    def check(self, left: int) -> None:
        """Whether `left` bytes after the header can hold what it claims; nothing is allocated. Raises Broken."""
        books = len(self.books)
        named = [name for book in self.books for name in book.parameters] + [part.parameter for part in self.plain]
        if len(set(named)) < len(named) or set(SHAPES) - set(named) - {"sh_rest"}:
            raise Broken("parameters that are missing or there twice")
        if (self.first is None) != (books == 0) or (self.first is not None and self.first >= books):
            raise Broken("no index to sort by")
        if (self.runs == 0) != (books == 0):
            raise Broken("no run lengths")
        if self.second is not None and (self.second == self.first or self.second >= books):
            raise Broken("no second index")
        claimed, framing = self.packed_bytes(), 13 * self.sections()
        fits = claimed + framing == left
        if self.entropy:  # how small each section has become, its own length tells
            fits = framing <= left and claimed <= SECTION_RATIO * left
        fits = fits and 13 * self.groups() <= left  # groups of one book have no section of their own
        if not fits or self.decoded_bytes() > MOST_RATIO * left:
            raise Broken(f"{left:,} bytes for the {self.gaussians:,} Gaussians it claims, which does not fit")

    def packed_bytes(self) -> int:
        """What all sections have when packed, without walking through them: a claim of gigabytes costs no time."""
        whole, rest = divmod(self.gaussians, self.rows)
        total = sum(packed_bytes(b.codes * b.width, b.bits) for b in self.books) + 8 * self.runs
        for n, times in ((self.rows, whole), (rest, 1)):
            total += times * sum(packed_bytes(n * width(p.parameter), p.bits) for p in self.plain)
            others = (b for i, b in enumerate(self.books) if i != self.first)
            total += times * sum(packed_bytes(n, bits_for(b.codes)) for b in others)
        return total

    def decoded_bytes(self) -> int:
        """What the scene takes in memory, with what costs a file nothing: the first index, and those of one code."""
        each = 4 * sum(width(p.parameter) for p in self.plain) + sum(index_type(b.codes).itemsize for b in self.books)
        return self.gaussians * each + 4 * sum(b.codes * b.width for b in self.books)

    def groups(self) -> int:
        """How many groups of rows there are."""
        return -(-self.gaussians // self.rows)

    def sections(self) -> int:
        """How many sections there are."""
        each = len(self.plain) + len(self.books) - (self.first is not None)
        return len(self.books) + (self.first is not None) + self.groups() * each

    def to_bytes(self) -> bytes:
        """The head of a file."""
        told = self.model_dump_json().encode("ascii")
        head = MAGIC + VERSION.to_bytes(2, "little") + len(told).to_bytes(4, "little") + told
        return head + zlib.crc32(head).to_bytes(4, "little")


# --- numbers -------------------------------------------------------------------------------------------------------


def to_numbers(values: np.ndarray, bits: int, step: float) -> np.ndarray:
    """Floats [N, ...] as whole numbers [N D], coordinate by coordinate: like beside like."""
    values = np.ascontiguousarray(values.reshape(len(values), -1).T).ravel()
    if bits == 32:
        return values.astype("<f4", copy=False).view("<u4")
    return (np.rint(values.astype(np.float64) / step) + (2 ** (bits - 1) - 1)).astype(np.uint32)


def to_floats(numbers: np.ndarray, n: int, bits: int, step: float) -> np.ndarray:
    """The inverse of `to_numbers`: numbers [N D] to floats [N, D]."""
    values = numbers.view("<f4") if bits == 32 else from_absmax(numbers, step, bits)
    return np.ascontiguousarray(values.reshape(-1, n).T)


def starts_of_runs(leader: np.ndarray) -> np.ndarray:
    """Where a run of equal first codes [N] begins, bool [N]; the first row of a group always does."""
    return np.concatenate([[True], leader[1:] != leader[:-1]])


def differences(index: np.ndarray, leader: np.ndarray) -> np.ndarray:
    """By how much an ascending index [N] grows within each run of equal first codes, those of `leader` [N]."""
    return np.where(starts_of_runs(leader), index, index - np.concatenate([[0], index[:-1]]))


def undo_differences(steps: np.ndarray, leader: np.ndarray) -> np.ndarray:
    """The inverse of `differences`."""
    sums, starts = np.cumsum(steps), np.flatnonzero(starts_of_runs(leader))
    before = np.concatenate([[0], sums])[starts]
    return sums - np.repeat(before, np.diff(np.append(starts, len(steps))))


# --- sections ------------------------------------------------------------------------------------------------------


def section(numbers: np.ndarray, bits: int, entropy: bool) -> bytes:
    """Numbers [N] below 2^bits with their length, coding and checksum."""
    payload, coding = pack(numbers, bits).tobytes(), AS_IT_IS
    if entropy and payload:
        small = _compressed(numbers, bits).ljust(-(-len(payload) // SECTION_RATIO), b"\0")
        if len(small) < len(payload):
            payload, coding = small, ZSTANDARD
    told = len(payload).to_bytes(8, "little") + bytes([coding]) + payload
    return told + zlib.crc32(told).to_bytes(4, "little")


def numbers_of(payload: bytes, coding: int, n: int, bits: int, *, entropy: bool) -> np.ndarray:
    """The n numbers of a section whose checksum is right, uint32 [n]. Raises Broken."""
    packed = packed_bytes(n, bits)
    if coding == AS_IT_IS and len(payload) == packed:
        return unpack(np.frombuffer(payload, np.uint8), n, bits)
    if coding == ZSTANDARD and entropy and packed <= SECTION_RATIO * len(payload):
        return _decompressed(payload, n, bits)
    raise Broken("a section of the wrong length")


def _compressed(numbers: np.ndarray, bits: int) -> bytes:
    """The lowest bytes of all numbers, then the second lowest..., each plane as its length and a Zstandard frame."""
    import zstandard

    out = []
    for plane in range(-(-bits // 8)):
        frame = zstandard.ZstdCompressor(level=LEVEL).compress((numbers >> (8 * plane)).astype(np.uint8).tobytes())
        out += [len(frame).to_bytes(4, "little"), frame]
    return b"".join(out)


def _decompressed(payload: bytes, n: int, bits: int) -> np.ndarray:
    import zstandard

    numbers, at = np.zeros(n, np.uint32), 0
    for plane in range(-(-bits // 8)):
        length = int.from_bytes(payload[at : at + 4], "little")
        frame = payload[at + 4 : at + 4 + length]
        try:
            if zstandard.frame_content_size(frame) != n:
                raise Broken("a section of the wrong length")
            found = zstandard.ZstdDecompressor().decompress(frame)
        except zstandard.ZstdError:
            raise Broken("a section that cannot be decompressed") from None
        numbers |= np.frombuffer(found, np.uint8).astype(np.uint32) << (8 * plane)
        at += 4 + length
    if len(payload) != max(at, -(-packed_bytes(n, bits) // SECTION_RATIO)) or any(payload[at:]):
        raise Broken("a section of the wrong length")
    if bits % 8 and int(numbers.max(initial=0)) >> bits:
        raise Broken("a number of too many bits")
    return numbers
