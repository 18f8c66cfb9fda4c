"""3D Gaussian splatting's .ply: one row of numbers a Gaussian.

Written as binary little-endian floats with the columns nx, ny, nz, which hold nothing but which strict readers want.
Read with or without them, in any order of the columns and of any kind, from files of either order of bytes or ASCII,
with harmonics of degrees 0 to 3, wherever among other elements the vertices are; and from PlayCanvas's compressed.ply.
All is checked against the file's size before anything is allocated. (Own code: the library for .ply files at large is
under a licence that this project cannot take on, and the one for splats writes no nx, ny, nz.)
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from effbook.errors import EffbookError
from effbook.gaussians.formats.compressed_ply import is_compressed, read_compressed_ply
from effbook.gaussians.formats.place import reading, replacing
from effbook.gaussians.formats.ply_header import Element, Header, ascii_rows, read_header, start_of
from effbook.gaussians.formats.values import Check, Say, warn
from effbook.gaussians.model import Gaussians
from effbook.gaussians.parameters import SH_REST

BASE = ("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity")
REST_COUNTS = {0: 0, 9: 3, 24: 8, 45: 15}  # columns f_rest_* -> harmonics a channel
ROWS_AT_ONCE = 1 << 18


def columns() -> list[str]:
    """The columns of a 3DGS file in their usual order."""
    rest = [f"f_rest_{i}" for i in range(3 * SH_REST)]
    scales, rotations = [f"scale_{i}" for i in range(3)], [f"rot_{i}" for i in range(4)]
    return ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *rest, "opacity", *scales, *rotations]


def write_ply(
    gaussians: Gaussians | Iterable[Gaussians], path: Path | str, *, count: int | None = None, say: Say = warn
) -> None:
    """Write all Gaussians; an existing file is replaced only when the new one is complete.

    A scene larger than the memory can come in parts, with their `count` in all. (`say` hears nothing: all fits, and is
    there as with the other formats.) Raises EffbookError for values that are
    not finite, a place that cannot be written to, and parts that are more or fewer than `count`.
    """
    parts = [gaussians] if isinstance(gaussians, Gaussians) else gaussians
    count = len(gaussians) if isinstance(gaussians, Gaussians) else count
    if count is None:
        raise EffbookError("a scene in parts needs the count of its Gaussians", "give count")
    path = Path(path)
    names = columns()
    header = "\n".join(
        ["ply", "format binary_little_endian 1.0", f"element vertex {count}"]
        + [f"property float {name}" for name in names]
        + ["end_header", ""]
    )
    with replacing(path) as out:
        out.write(header.encode("ascii"))
        written = 0
        for whole in parts:
            for start in range(0, len(whole), ROWS_AT_ONCE):
                part = whole.map(lambda t, s=start: t[s : s + ROWS_AT_ONCE].detach().cpu().float())
                part.check_finite()  # part by part: a mask over a whole scene would need its own memory
                written += out.write(_table(part).tobytes()) // (4 * len(names))
        if written != count:
            raise EffbookError(f"the parts have {written:,} Gaussians and not {count:,}", "give their true count")


def _table(part: Gaussians) -> np.ndarray:
    """All columns of some rows."""
    n = len(part)
    table = np.zeros((n, len(columns())), "<f4")
    table[:, 0:3], table[:, 6:9] = part.means, part.sh_dc
    table[:, 9:54] = part.sh_rest.permute(0, 2, 1).reshape(n, -1)  # the file has channel by channel
    table[:, 54], table[:, 55:58], table[:, 58:62] = part.opacities, part.scales, part.rotations
    return table


def read_ply(path: Path | str, *, say: Say = warn) -> Gaussians:
    """Read a trained 3DGS scene, or a compressed.ply of one.

    `say` hears how many opacities of 1 (an infinite logit) and sizes of 0 are clamped. Raises EffbookError for what is
    no .ply, missing columns, a length that the file does not hold, and other values that are not finite.
    """
    path = Path(path)
    header = read_header(path)
    if is_compressed(header):
        return read_compressed_ply(path, header, say)
    vertices = _vertices(path, header)
    names, count = [name for name, _ in vertices.columns], vertices.rows
    rest = sorted((name for name in names if name.startswith("f_rest_")), key=lambda name: int(name[7:]))
    bands = REST_COUNTS[len(rest)]
    tables = _binary(path, header, vertices) if header.order else [ascii_rows(path, header, vertices)]
    found: dict[str, np.ndarray] = {}
    check, first = Check(path), 0
    for table in tables:
        rows = slice(first, first + len(table))
        first += len(table)
        part = {
            "means": _columns(table, ["x", "y", "z"]),
            "sh_dc": _columns(table, [f"f_dc_{i}" for i in range(3)]),
            "sh_rest": np.zeros((len(table), SH_REST, 3), np.float32),
            "opacities": _columns(table, ["opacity"])[:, 0],
            "scales": _columns(table, [f"scale_{i}" for i in range(3)]),
            "rotations": _columns(table, [f"rot_{i}" for i in range(4)]),
        }
        for i, name in enumerate(rest):
            part["sh_rest"][:, i % bands, i // bands] = table[name]
        mended = check.part(Gaussians(**{name: torch.from_numpy(array) for name, array in part.items()}))
        for name, tensor in mended.tensors().items():
            if name not in found:
                found[name] = np.empty((count, *tensor.shape[1:]), np.float32)
            found[name][rows] = tensor.numpy()
    check.done(say)
    return Gaussians(**{name: torch.from_numpy(array) for name, array in found.items()})


def _columns(table: np.ndarray, names: list[str]) -> np.ndarray:
    with np.errstate(over="ignore"):  # a double that no float holds becomes infinite, and is refused as that
        return np.stack([table[name].astype(np.float32) for name in names], axis=1)


def _vertices(path: Path, header: Header) -> Element:
    """The element of the Gaussians, which has all columns that it needs."""
    vertices = next((element for element in header.elements if element.name == "vertex"), None)
    if vertices is None:
        raise EffbookError(f"{path} has no vertices", "export it as a 3D Gaussian splatting .ply")
    if vertices.lists:
        raise EffbookError(
            f"{path} has lists where each Gaussian has a number ({', '.join(vertices.lists)[:60]})", "export it again"
        )
    if vertices.rows == 0:
        raise EffbookError(f"{path} holds no Gaussian", "export a trained scene")
    names = [name for name, _ in vertices.columns]
    wanted = [*BASE, *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    if missing := [name for name in wanted if name not in names]:
        raise EffbookError(
            f"{path} lacks the columns {', '.join(missing)}", "export it as a 3D Gaussian splatting .ply"
        )
    rest = {name for name in names if name.startswith("f_rest_")}
    if len(rest) not in REST_COUNTS or rest != {f"f_rest_{i}" for i in range(len(rest))}:
        raise EffbookError(f"{path} has {len(rest)} columns f_rest, not 0, 9, 24 or 45", "export it again")
    return vertices


def _binary(path: Path, header: Header, vertices: Element) -> Iterator[np.ndarray]:
    """The rows of a binary file, some at a time."""
    dtype, start = header.dtype(vertices), start_of(path, header, vertices)
    held = max(0, path.stat().st_size - start) // dtype.itemsize
    if vertices.rows > held:
        raise EffbookError(f"{path} claims {vertices.rows:,} Gaussians and holds {held:,}", "copy or export it again")
    with reading(path) as file:
        file.seek(start)
        for first in range(0, vertices.rows, ROWS_AT_ONCE):
            n = min(ROWS_AT_ONCE, vertices.rows - first)
            raw = file.read(n * dtype.itemsize)
            if len(raw) < n * dtype.itemsize:
                raise EffbookError(f"{path} ends early", "copy or export it again")
            yield np.frombuffer(raw, dtype)
