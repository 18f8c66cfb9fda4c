"""An open `.compgs` file, of which nothing is believed: see `container` for the format."""

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError

from effbook.compgs.bits import bits_for
from effbook.compgs.layout import (
    MAGIC,
    MOST_HEADER,
    VERSION,
    Book,
    Broken,
    Header,
    Plain,
    numbers_of,
    to_floats,
    undo_differences,
)
from effbook.compgs.model import index_type
from effbook.errors import EffbookError
from effbook.gaussians.parameters import SHAPES, width


class Reader:
    """A file whose header is checked when it is entered; `groups` reads the codes, then the Gaussians.

    Raises EffbookError for a file that is missing, cut off, changed, or that claims more than its bytes can hold.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.codes: list[torch.Tensor] = []
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise EffbookError(f"{path} cannot be read ({error.strerror})", "name a file that is there") from None

    def __enter__(self) -> "Reader":
        try:
            self._left = self.size = self.path.stat().st_size
            self.header = self._read_header()
            try:
                self.header.check(self._left)
            except Broken as error:
                raise self._broken(str(error)) from None
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def groups(self) -> Iterator[tuple[dict[str, torch.Tensor], list[torch.Tensor]]]:
        """(plain parameters, indices) of each group of rows; `codes` are there from the first one on."""
        header = self.header
        self.codes = [self._floats(told.codes, told.width, told) for told in header.books]
        ends, place = self._read_runs() if header.first is not None else (None, None)
        for start in range(0, header.gaussians, header.rows):
            n = min(header.rows, header.gaussians - start)
            plain = {}
            for told in header.plain:
                values = self._floats(n, width(told.parameter), told)
                plain[told.parameter] = values.reshape(n, *SHAPES[told.parameter])
            found: list[np.ndarray] = [np.zeros(0)] * len(header.books)
            if header.first is not None:
                found[header.first] = place[np.searchsorted(ends, np.arange(start, start + n), side="right")]
            for i, told in enumerate(header.books):
                if i == header.first:
                    continue
                index = self._section(n, bits_for(told.codes)).astype(np.int64)
                if i == header.second:
                    index = undo_differences(index, found[header.first])
                if int(index.max()) >= told.codes:
                    raise self._broken("an index beyond its codebook")
                found[i] = index
            kinds = [index_type(told.codes) for told in header.books]
            yield plain, [torch.from_numpy(index).to(kind) for index, kind in zip(found, kinds, strict=True)]
        if self._left:
            raise self._broken(f"{self._left} bytes too many")

    def _read_header(self) -> Header:
        head = self._bytes(14)
        if head[:8] != MAGIC:
            raise EffbookError(f"{self.path} is no .compgs file", "name one that effbook.compgs wrote")
        version, length = int.from_bytes(head[8:10], "little"), int.from_bytes(head[10:14], "little")
        if version != VERSION:
            raise EffbookError(f"{self.path} has version {version}, this reads version {VERSION}", "write it again")
        if length > MOST_HEADER:
            raise self._broken(f"a header of {length:,} bytes")
        told, check = self._bytes(length), self._bytes(4)
        if zlib.crc32(head + told).to_bytes(4, "little") != check:
            raise self._broken("a changed header")
        try:
            return Header.model_validate_json(told)
        except ValidationError as error:
            raise self._broken(f"a header that makes no sense ({error.errors()[0]['msg']})") from None

    def _read_runs(self) -> tuple[np.ndarray, np.ndarray]:
        """Where in the order of the Gaussians each code of the first book ends, and which code that then is."""
        header = self.header
        lengths, shared_by = self._section(2 * header.runs, 32).astype(np.int64).reshape(-1, 2).T
        right = (np.diff(lengths) < 0).all() and shared_by.sum() == header.books[header.first].codes
        if not right or (lengths * shared_by).sum() != header.gaussians:
            raise self._broken("run lengths that do not add up")
        codes = self.codes[header.first].numpy()
        ascending = np.lexsort(codes.T[::-1])
        self.codes[header.first] = torch.from_numpy(codes[ascending])
        place = np.empty_like(ascending)
        place[ascending] = np.arange(len(place))
        return np.cumsum(np.repeat(lengths, shared_by)), place

    def _floats(self, n: int, wide: int, told: Plain | Book) -> torch.Tensor:
        """The next section as floats, [n, wide]."""
        values = to_floats(self._section(n * wide, told.bits), n, told.bits, told.step)
        if not np.isfinite(values).all():
            raise self._broken("values that are not finite")
        return torch.from_numpy(values)

    def _section(self, n: int, bits: int) -> np.ndarray:
        """The next n numbers, uint32."""
        head = self._bytes(9)
        length = int.from_bytes(head[:8], "little")
        if length > self._left:
            raise self._broken("an end in the middle of a section")
        payload, check = self._bytes(length), self._bytes(4)
        if zlib.crc32(payload, zlib.crc32(head)).to_bytes(4, "little") != check:
            raise self._broken("a changed section")
        try:
            return numbers_of(payload, head[8], n, bits, entropy=self.header.entropy)
        except Broken as error:
            raise self._broken(str(error)) from None

    def _bytes(self, n: int) -> bytes:
        found = self._file.read(n)
        if len(found) < n:
            raise self._broken("an end too early")
        self._left -= n
        return found

    def _broken(self, what: str) -> EffbookError:
        return EffbookError(f"{self.path} is broken: it has {what}", "copy or write it again")
