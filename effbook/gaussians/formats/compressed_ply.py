"""PlayCanvas's compressed.ply: 256 Gaussians share a box of positions, sizes and colours, and have 4 words each.

An element `chunk` has the boxes' ends; `vertex` has positions and sizes in 11, 10 and 11 bits from the top of a word,
rotations as the smallest three of four in 10 bits beneath 2 bits that tell the largest (w, x, y, z), and colour and
opacity in 8 bits each; `sh`, if there, has harmonics in a byte each, from -4 to 4.
"""

from pathlib import Path

import numpy as np
import torch

from effbook.errors import EffbookError
from effbook.gaussians.formats.place import reading
from effbook.gaussians.formats.ply_header import Element, Header, start_of
from effbook.gaussians.formats.values import Say, checked, logits_of_bytes, of_smallest_three
from effbook.gaussians.model import Gaussians
from effbook.gaussians.parameters import SH_C0, SH_REST

IN_A_CHUNK = 256
WORDS = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
ENDS = [f"{end}_{axis}" for end in ("min", "max") for axis in "xyz"]
SCALE_ENDS = [f"{end}_scale_{axis}" for end in ("min", "max") for axis in "xyz"]
COLOUR_ENDS = [f"{end}_{channel}" for end in ("min", "max") for channel in "rgb"]
HARMONICS = {0: 0, 9: 3, 24: 8, 45: 15}  # columns -> harmonics a channel


def is_compressed(header: Header) -> bool:
    """Whether a header is that of a compressed.ply."""
    found = {element.name: {name for name, _ in element.columns} for element in header.elements}
    return "chunk" in found and "packed_position" in found.get("vertex", ())


def read_compressed_ply(path: Path, header: Header, say: Say) -> Gaussians:
    """The scene of such a file. Raises EffbookError for missing columns, chunks or bytes, and what is not finite."""
    if header.order != "<":
        raise EffbookError(f"{path} is a compressed .ply that is not binary little-endian", "export it again")
    elements = {element.name: element for element in header.elements}
    chunks, words = (_table(path, header, elements[name]) for name in ("chunk", "vertex"))
    n = len(words)
    if n == 0:
        raise EffbookError(f"{path} holds no Gaussian", "export a trained scene")
    _want(path, "chunk", chunks, (*ENDS, *SCALE_ENDS), "f4")
    _want(path, "vertex", words, WORDS, "u4")
    if len(chunks) * IN_A_CHUNK < n:
        raise EffbookError(f"{path} has {len(chunks):,} chunks for {n:,} Gaussians", "export it again")
    of = np.arange(n) // IN_A_CHUNK

    def between(names: list[str], shares: np.ndarray) -> np.ndarray:
        ends = np.stack([chunks[name] for name in names], axis=1)[of].astype(np.float64)
        return ends[:, :3] + shares * (ends[:, 3:] - ends[:, :3])

    rotation = words["packed_rotation"]
    three = np.stack([(rotation >> np.uint32(s)) & np.uint32(1023) for s in (20, 10, 0)], axis=1)
    colour = np.stack([(words["packed_color"] >> np.uint32(s)) & np.uint32(255) for s in (24, 16, 8, 0)], axis=1)
    shares = colour[:, :3] / 255
    if set(COLOUR_ENDS) <= set(chunks.dtype.names):  # older files have none: from 0 to 1
        shares = between(COLOUR_ENDS, shares)
    gaussians = Gaussians(
        means=_floats(between(ENDS, _eleven_ten_eleven(words["packed_position"]))),
        sh_dc=_floats((shares - 0.5) / SH_C0),
        sh_rest=_floats(_harmonics(path, header, elements.get("sh"), n)),
        opacities=logits_of_bytes(colour[:, 3]),
        scales=_floats(between(SCALE_ENDS, _eleven_ten_eleven(words["packed_scale"]))),
        rotations=torch.from_numpy(
            of_smallest_three((rotation >> np.uint32(30)).astype(np.int64), (three / 1023 - 0.5) * np.sqrt(2))
        ),
    )
    return checked(gaussians, path, say)


def _floats(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))


def _eleven_ten_eleven(words: np.ndarray) -> np.ndarray:
    """Three shares from 0 to 1 of each word, [N, 3]."""
    fields = ((21, 2047), (11, 1023), (0, 2047))
    return np.stack([((words >> np.uint32(s)) & np.uint32(most)) / most for s, most in fields], axis=1)


def _harmonics(path: Path, header: Header, element: Element | None, n: int) -> np.ndarray:
    """[n, 15, 3]; a byte is the middle of a 256th of the range, but for the ends, which stand for themselves."""
    found = np.zeros((n, SH_REST, 3))
    if element is None:
        return found
    table = _table(path, header, element)
    bands = HARMONICS.get(len(element.columns))
    if len(table) != n or bands is None:
        raise EffbookError(
            f"{path} has {len(element.columns)} harmonics for {len(table):,} of {n:,} Gaussians", "export it again"
        )
    _want(path, "sh", table, tuple(f"f_rest_{i}" for i in range(3 * bands)), "u1")
    for i in range(3 * bands):
        byte = table[f"f_rest_{i}"].astype(np.float64)
        shares = np.where(byte == 0, 0.0, np.where(byte == 255, 1.0, (byte + 0.5) / 256))
        found[:, i % bands, i // bands] = 8 * (shares - 0.5)
    return found


def _want(path: Path, element: str, table: np.ndarray, names: tuple[str, ...], kind: str) -> None:
    if wrong := [name for name in names if name not in table.dtype.names or table.dtype[name] != np.dtype(f"<{kind}")]:
        raise EffbookError(f"{path} lacks the columns {', '.join(wrong)} of its element {element}", "export it again")


def _table(path: Path, header: Header, element: Element) -> np.ndarray:
    if element.lists:
        raise EffbookError(f"{path} has lists in its element {element.name}", "export it again")
    dtype, start = header.dtype(element), start_of(path, header, element)
    held = max(0, path.stat().st_size - start) // max(1, dtype.itemsize)
    if element.rows > held:
        raise EffbookError(
            f"{path} claims {element.rows:,} rows of {element.name} and holds {held:,}", "copy or export it again"
        )
    with reading(path) as file:
        file.seek(start)
        return np.frombuffer(file.read(element.rows * dtype.itemsize), dtype)
