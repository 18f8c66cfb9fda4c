"""The header of a .ply file: what it holds, in which columns of which kind, and where in the file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from effbook.errors import EffbookError
from effbook.gaussians.formats.place import reading

HEADER_BYTES = 65_536  # at most
TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
FORMATS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}


@dataclass(frozen=True)
class Element:
    """One table of a file. Columns that are lists of numbers have a type (of the count, of the numbers)."""

    name: str
    rows: int
    columns: tuple[tuple[str, str | tuple[str, str]], ...]

    @property
    def lists(self) -> list[str]:
        """Names of the columns that are lists."""
        return [name for name, kind in self.columns if isinstance(kind, tuple)]


@dataclass(frozen=True)
class Header:
    """What stands before the data; `order` is numpy's mark of the bytes' order, empty for ASCII."""

    order: str
    elements: tuple[Element, ...]
    start: int

    def dtype(self, element: Element) -> np.dtype:
        """The row of an element without lists."""
        return np.dtype([(name, f"{self.order}{kind}") for name, kind in element.columns])


def read_header(path: Path) -> Header:
    """The header of a file. Raises EffbookError for what is no .ply, or has a column that is no number."""
    with reading(path) as file:
        head = file.read(HEADER_BYTES)
    first, _, rest = head.partition(b"\n")
    end = next((at for mark in (b"\nend_header\n", b"\nend_header\r\n") if (at := rest.find(mark)) >= 0), -1)
    if first.rstrip(b"\r") != b"ply" or end < 0:
        raise EffbookError(f"{path} is no .ply file", "export the scene as a 3D Gaussian splatting .ply")
    start = len(first) + 1 + rest.index(b"\n", end + 1) + 1
    lines = [line.split() for line in rest[:end].decode("latin-1").split("\n")]  # comments may have any bytes
    lines = [line for line in lines if line and line[0] not in ("comment", "obj_info")]
    if not lines or lines[0][0] != "format" or lines[0][1:] not in ([kind, "1.0"] for kind in FORMATS):
        raise EffbookError(f"{path} is not binary or ASCII of version 1.0", "export it as one of them")
    elements: list[tuple[str, int, list]] = []
    for line in lines[1:]:
        if line[0] == "element" and len(line) == 3 and line[2].isascii() and line[2].isdigit():
            if len(line[2]) > 18:
                raise EffbookError(f"{path} claims {line[2]} rows, more than it holds", "copy or export it again")
            elements.append((line[1], int(line[2]), []))
        elif line[0] == "property" and elements:
            elements[-1][2].append((line[-1], _kind(path, line)))
        else:
            raise EffbookError(f"{path} has a broken header ({' '.join(line)[:60]})", "export it again")
    for _, _, columns in elements:
        if len({name for name, _ in columns}) < len(columns):
            raise EffbookError(f"{path} has a column twice", "export it again")
    found = tuple(Element(name, rows, tuple(columns)) for name, rows, columns in elements)
    if len({one.name for one in found}) < len(found):
        raise EffbookError(f"{path} has an element twice", "export it again")
    return Header(FORMATS[lines[0][1]], found, start)


def _kind(path: Path, line: list[str]) -> str | tuple[str, str]:
    if len(line) == 3 and line[1] in TYPES:
        return TYPES[line[1]]
    if len(line) == 5 and line[1] == "list" and line[2] in TYPES and line[3] in TYPES and TYPES[line[2]][0] != "f":
        return TYPES[line[2]], TYPES[line[3]]
    raise EffbookError(f"{path} has a column that is no number: {' '.join(line[1:])[:60]}", "export it again")


def start_of(path: Path, header: Header, wanted: Element) -> int:
    """Where in a binary file an element begins. Raises EffbookError for a file that ends before."""
    size, at = path.stat().st_size, header.start
    for element in header.elements:
        if element.name == wanted.name:
            return at
        if not element.lists:
            at += element.rows * header.dtype(element).itemsize
        else:
            at = _after_lists(path, header, element, at)
        if at > size:
            break
    raise EffbookError(f"{path} ends before its element {wanted.name}", "copy or export it again")


def _after_lists(path: Path, header: Header, element: Element, at: int) -> int:
    """Where an element whose rows differ in length ends: they are walked through."""
    with reading(path) as file:
        raw = file.read()
    for _ in range(element.rows):
        for _, kind in element.columns:
            if isinstance(kind, str):
                at += np.dtype(kind).itemsize
                continue
            count_kind = np.dtype(header.order + kind[0])
            if at + count_kind.itemsize > len(raw):
                return len(raw) + 1
            count = int(np.frombuffer(raw, count_kind, 1, at)[0])
            if count < 0:
                return len(raw) + 1
            at += count_kind.itemsize + count * np.dtype(kind[1]).itemsize
    return at


def ascii_rows(path: Path, header: Header, wanted: Element) -> np.ndarray:
    """An element of an ASCII file, as a table of doubles with named columns. Raises EffbookError for broken rows."""
    with reading(path) as file:
        file.seek(header.start)
        lines = [line for line in file.read().decode("latin-1").split("\n") if line.strip()]
    at = 0
    for element in header.elements:
        if element.name == wanted.name:
            break
        at += element.rows
    lines = lines[at : at + wanted.rows]
    if len(lines) < wanted.rows:
        raise EffbookError(f"{path} claims {wanted.rows:,} Gaussians and holds {len(lines):,}", "copy it again")
    table = np.zeros(wanted.rows, [(name, "f8") for name, _ in wanted.columns])
    try:
        rows = np.array([line.split() for line in lines], dtype=np.float64).reshape(wanted.rows, -1)
    except ValueError:
        raise EffbookError(
            f"{path} has a row that is not made of numbers, or one of another length", "export it again"
        ) from None
    if rows.shape[1] != len(wanted.columns):
        raise EffbookError(
            f"{path} has rows of {rows.shape[1]} numbers for {len(wanted.columns)} columns", "export it again"
        )
    for i, (name, _) in enumerate(wanted.columns):
        table[name] = rows[:, i]
    return table
