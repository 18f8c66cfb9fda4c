"""The bytes of a `.compgs` file of version 3: its header, and sections with their checksums. `codec` has the whole."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from effbook.compgs.layout import AS_IT_IS, MAGIC, MOST_HEADER, MOST_RATIO, ZSTANDARD
from effbook.errors import EffbookError
from effbook.gaussians.formats.place import reading
from effbook.gaussians.parameters import PARAMETERS

VERSION = 3
RANGE_CODED = 2  # AS_IT_IS and ZSTANDARD are 0 and 1, as in version 2
PARTS = (
    "classes",
    "opacities",
    "scales",
    "rotations",
    "cells",
    "offsets",
    "sh_dc",
    "sh_rest",
    "exact",
)  # sections of some rows
MOST_UNZIPPED = 1 << 10  # of a Zstandard section, to its bytes


class Header(BaseModel):
    """From it follows which sections come."""

    model_config = ConfigDict(extra="forbid", strict=True)

    gaussians: Annotated[int, Field(ge=0, lt=2**32)]
    rows: Annotated[int, Field(ge=1, le=2**20)]
    harmonics: Annotated[int, Field(ge=0, le=45)]  # principal axes that are kept
    cell_bits: Annotated[int, Field(ge=1, le=16)]  # of a place along each axis; the others are offsets

    def to_bytes(self) -> bytes:
        """The head of a file."""
        told = self.model_dump_json().encode("ascii")
        head = MAGIC + VERSION.to_bytes(2, "little") + len(told).to_bytes(4, "little") + told
        return head + zlib.crc32(head).to_bytes(4, "little")


@dataclass(frozen=True)
class Section:
    """A payload and how it is coded."""

    coding: int
    payload: bytes

    @classmethod
    def of_numbers(cls, payload: bytes) -> bytes:
        """The section of what the range coder made."""
        return cls(RANGE_CODED, payload).to_bytes()

    @classmethod
    def of_bytes(cls, payload: bytes) -> bytes:
        """The section of other bytes: by Zstandard, where that makes them fewer and not fewer than a 1024th."""
        import zstandard

        small = zstandard.ZstdCompressor(level=19).compress(payload)
        if len(small) < len(payload) <= MOST_UNZIPPED * len(small):
            return cls(ZSTANDARD, small).to_bytes()
        return cls(AS_IT_IS, payload).to_bytes()

    def to_bytes(self) -> bytes:
        """Length, coding, payload and checksum."""
        told = len(self.payload).to_bytes(8, "little") + bytes([self.coding]) + self.payload
        return told + zlib.crc32(told).to_bytes(4, "little")


def load(path: Path) -> bytes:
    """A file's bytes. Raises EffbookError if it cannot be read."""
    with reading(path) as file:
        return file.read()


def version(data: bytes) -> int | None:
    """The version that a `.compgs` file's first bytes tell; None for another file."""
    return int.from_bytes(data[8:10], "little") if data[:8] == MAGIC and len(data) >= 10 else None


def version_of(path: Path | str) -> int | None:
    """The version of a `.compgs` file; None for another file. Raises EffbookError if it cannot be read."""
    with reading(Path(path)) as file:
        return version(file.read(10))


class Reader:
    """Bytes of which nothing is believed: a header that fits, then section by section.

    Raises EffbookError, which names the file, for what is cut off, changed, or claims more than its bytes can hold.
    """

    def __init__(self, data: bytes, name: object = "the file") -> None:
        self.name, self._data, self._at = name, memoryview(data), 0
        self.sizes: list[int] = []  # of the sections so far
        if version(data) != VERSION:
            raise EffbookError(f"{name} is no .compgs file of version {VERSION}", "name one that effbook.compgs wrote")
        length = int.from_bytes(self._bytes(14)[10:], "little")
        self.check(length <= MOST_HEADER)
        told, check = self._bytes(length), self._bytes(4)
        self.check(zlib.crc32(self._data[: 14 + length]).to_bytes(4, "little") == check)
        try:
            self.header = Header.model_validate_json(bytes(told))
        except ValidationError:
            self.check(False)
        self.check(4 * PARAMETERS * self.header.gaussians <= MOST_RATIO * len(data))

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """At most zeros may be left: of a scene that is small beyond measure."""
        if kind is None and self._at < len(self._data):
            self.check(not any(self.next()) and self._at == len(self._data))

    def next(self) -> bytes:
        """The payload of the next section, decompressed where Zstandard has compressed it."""
        import zstandard

        head = self._bytes(9)
        length, coding = int.from_bytes(head[:8], "little"), head[8]
        self.check(length <= len(self._data) - self._at)
        payload, check = self._bytes(length), self._bytes(4)
        self.check(zlib.crc32(payload, zlib.crc32(head)).to_bytes(4, "little") == check)
        self.check(coding in (AS_IT_IS, ZSTANDARD, RANGE_CODED))
        self.sizes.append(length + 13)
        if coding != ZSTANDARD:
            return bytes(payload)
        try:
            size = zstandard.frame_content_size(payload)
            self.check(0 <= size <= MOST_UNZIPPED * length)
            return zstandard.ZstdDecompressor().decompress(payload)
        except zstandard.ZstdError:
            self.check(False)
            raise

    def check(self, right: object) -> None:
        """Raise EffbookError unless `right`."""
        if not right:
            raise EffbookError(f"{self.name} is broken", "copy or write it again")

    def _bytes(self, n: int) -> memoryview:
        self.check(n <= len(self._data) - self._at)
        self._at += n
        return self._data[self._at - n : self._at]


def describe(path: Path | str) -> dict:
    """What a file tells of itself, with the bytes of each kind of section, frames and checksums included."""
    data = load(Path(path))
    with Reader(data, path) as reader:
        header = reader.header
        reader.next()
        sizes = {"tables": reader.sizes[0]} | dict.fromkeys(PARTS, 0)
        for _ in range(0, header.gaussians, header.rows):
            for part in PARTS:
                reader.next()
                sizes[part] += reader.sizes[-1]
    return {"version": VERSION, "bytes": len(data), "sections": sizes, **header.model_dump()}
