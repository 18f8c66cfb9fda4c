"""Weights in the files of TensorFlow and of haiku, read without either, and without running anything in them."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from effbook.errors import EffbookError

# ------------------------------------------------------------------------------------------------------- TensorFlow
# A checkpoint is an .index and its .data files. The index is a sorted table of LevelDB's format: blocks of keys and
# values, in which a key gives only what differs from the key before. A value is a protocol buffer, BundleEntryProto.

_FOOTER_BYTES, _MAGIC = 48, bytes.fromhex("57fb808b247547db")  # the footer ends with it
_FLOAT32 = 1  # DT_FLOAT


def read_tensorflow(index: Path) -> dict[str, np.ndarray]:
    """The float32 tensors of a checkpoint by name; others, such as the count of steps, are left out.

    `index` is the .index file, beside which the .data files lie. Raises EffbookError where it is none, is compressed
    (TensorFlow writes none that are), or where data is missing.
    """
    try:
        table = index.read_bytes()
        if len(table) < _FOOTER_BYTES or not table.endswith(_MAGIC):
            raise ValueError("it is no index")
        _, _, offset, size = _varints(table, len(table) - _FOOTER_BYTES, 4)[0]  # the first two are of the meta-index
        places = [_varints(place, 0, 2)[0] for _, place in _block(table, offset, size)]
        (_, header), *entries = [entry for place in places for entry in _block(table, *place)]
        shards = dict(_fields(header))[1]
        arrays = {key.decode(): _array(index, shards, dict(_fields(value))) for key, value in entries}
    except (LookupError, ValueError, TypeError, OSError, OverflowError, MemoryError) as error:
        raise EffbookError(
            f"{index} cannot be read as a TensorFlow checkpoint ({error})", "fetch it again with all of its files"
        ) from error
    return {name: array for name, array in arrays.items() if array is not None}


def _array(index: Path, shards: int, entry: dict) -> np.ndarray | None:
    """The tensor of a BundleEntryProto {1: type, 2: shape, 3: shard, 4: offset, 5: bytes}; zeros are not written."""
    if entry.get(1) != _FLOAT32:
        return None
    # TensorShapeProto: a field 2 for each dimension, whose field 1 is the size.
    shape = [dict(_fields(size)).get(1, 0) for number, size in _fields(entry.get(2, b"")) if number == 2]
    file = index.with_name(f"{index.stem}.data-{entry.get(3, 0):05d}-of-{shards:05d}")
    return np.fromfile(file, "<f4", entry.get(5, 0) // 4, offset=entry.get(4, 0)).reshape(shape)


def _block(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of one block; its last four bytes count the restart points, which stand before them."""
    if table[offset + size]:
        raise ValueError("it is compressed")
    block = table[offset : offset + size]
    end = size - 4 * (int.from_bytes(block[-4:], "little") + 1)
    at, key = 0, b""
    while at < end:
        (shared, fresh, length), at = _varints(block, at, 3)
        key = key[:shared] + block[at : at + fresh]
        at += fresh + length
        yield key, block[at - length : at]


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protocol buffer: number, and an integer or bytes."""
    at = 0
    while at < len(message):
        (tag,), at = _varints(message, at, 1)
        if tag & 7 == 0:  # a varint
            (value,), at = _varints(message, at, 1)
            yield tag >> 3, value
            continue
        if tag & 7 == 2:  # bytes after their length
            (length,), at = _varints(message, at, 1)
        else:  # 4 or 8 bytes
            length = {5: 4, 1: 8}[tag & 7]
        yield tag >> 3, message[at : at + length]
        at += length


def _varints(data: bytes, at: int, count: int) -> tuple[list[int], int]:
    """`count` integers of seven bits a byte, the low ones first, and where they end."""
    found = []
    for _ in range(count):
        value = shift = 0
        while data[at] & 0x80:
            value, shift, at = value | (data[at] & 0x7F) << shift, shift + 7, at + 1
        found.append(value | data[at] << shift)
        at += 1
    return found, at


# ------------------------------------------------------------------------------------------------- pickles of haiku


def read_haiku(path: Path) -> Any:
    """A haiku checkpoint, pickled by pickle or dill, as dicts (of mappings and named tuples alike) and arrays.

    Raises EffbookError for a file that is damaged or asks for anything but arrays, dicts, strings and numbers.
    """
    try:
        with path.open("rb") as stream:
            return _with_arrays(_Unpickler(stream).load())
    except EffbookError:
        raise
    except Exception as error:  # a damaged pickle raises whatever it leads to
        raise EffbookError(f"{path} cannot be read as a pickle of weights", "fetch it again") from error


class _Kept:
    """Stands for numpy's dtypes, arrays and numbers, and keeps what their pickles tell. Numpy's own are not safe:
    a forged dtype makes it take bytes for pointers.
    """

    def __init__(self, *given: Any) -> None:
        self.given, self.state = given, None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Knows stand-ins only; those that are functions are made anew each time, so that no file can change them."""

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case "numpy", "ndarray" | "dtype":
                return _Kept
            case "numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct" | "scalar":
                return _Kept
            case "_codecs", "encode":  # bytes, in the second protocol
                return lambda text, _: text.encode("latin1")
            case "haiku._src.data_structures", "FlatMapping" | "frozendict":
                return dict
            case "dill._dill", "_create_namedtuple":
                return lambda name, fields, *_: type(
                    "Record", (), {"__new__": lambda cls, *values: dict(zip(fields, values, strict=True))}
                )
        raise EffbookError(
            f"the pickle asks for {module}.{name}, which weights do not need", "do not use a file of unknown origin"
        )


def _with_arrays(found: Any) -> Any:
    """What was kept of float arrays as arrays; of others, such as the state of random draws, nothing is needed."""
    if isinstance(found, dict):
        return {key: _with_arrays(value) for key, value in found.items()}
    if not isinstance(found, _Kept):
        return found
    if found.state is None:
        return None
    _, shape, dtype, fortran, data = found.state
    if dtype.given[0] not in ("f2", "f4", "f8"):
        return None
    order = "F" if fortran else "C"
    return np.frombuffer(data, f"{dtype.state[1]}{dtype.given[0]}").reshape(shape, order=order)
