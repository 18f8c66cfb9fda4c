"""3D Gaussian splatting's .ply: binary little-endian floats, one row a Gaussian.

Written with the columns nx, ny, nz, which hold nothing but which strict readers want; read with or without them, in any
order of the columns, and with harmonics of degrees 0 to 3. All is checked against the file's size before anything is
allocated. (Own code: the library for .ply files at large is under a licence that this project cannot take on, and the
one for splats writes no nx, ny, nz.)
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from effbook.errors import EffbookError
from effbook.gaussians.formats.place import reading, replacing
from effbook.gaussians.model import Gaussians
from effbook.gaussians.parameters import SH_REST

HEADER_BYTES = 65_536  # at most
TYPES = {
    "float": "<f4",
    "float32": "<f4",
    "double": "<f8",
    "float64": "<f8",
    "uchar": "u1",
    "uint8": "u1",
    "int": "<i4",
}
BASE = ("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity")
REST_COUNTS = {0: 0, 9: 3, 24: 8, 45: 15}  # columns f_rest_* -> harmonics a channel
ROWS_AT_ONCE = 1 << 18


def columns() -> list[str]:
    """The columns of a 3DGS file in their usual order."""
    rest = [f"f_rest_{i}" for i in range(3 * SH_REST)]
    scales, rotations = [f"scale_{i}" for i in range(3)], [f"rot_{i}" for i in range(4)]
    return ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *rest, "opacity", *scales, *rotations]


def write_ply(gaussians: Gaussians | Iterable[Gaussians], path: Path | str, *, count: int | None = None) -> None:
    """Write all Gaussians; an existing file is replaced only when the new one is complete.

    A scene larger than the memory can come in parts, with their `count` in all. Raises EffbookError for values that are
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


def read_ply(path: Path | str) -> Gaussians:
    """Read a trained 3DGS scene.

    Raises EffbookError for what is no .ply, ASCII or big-endian files, missing columns, a length that the file does not
    hold, and values that are not finite.
    """
    path = Path(path)
    count, kinds, start = _header(path)
    dtype = np.dtype(kinds)
    _check_size(path, count, dtype, start)
    rest = sorted((name for name in dtype.names if name.startswith("f_rest_")), key=lambda name: int(name[7:]))
    bands = REST_COUNTS[len(rest)]
    found = {
        "means": np.empty((count, 3), np.float32),
        "sh_dc": np.empty((count, 3), np.float32),
        "sh_rest": np.zeros((count, SH_REST, 3), np.float32),
        "opacities": np.empty(count, np.float32),
        "scales": np.empty((count, 3), np.float32),
        "rotations": np.empty((count, 4), np.float32),
    }
    with reading(path) as file:
        file.seek(start)
        for first in range(0, count, ROWS_AT_ONCE):
            n = min(ROWS_AT_ONCE, count - first)
            raw = file.read(n * dtype.itemsize)
            if len(raw) < n * dtype.itemsize:
                raise EffbookError(f"{path} ends early", "copy or export it again")
            table, rows = np.frombuffer(raw, dtype), slice(first, first + n)
            for i, name in enumerate("xyz"):
                found["means"][rows, i] = table[name]
            for i in range(3):
                found["sh_dc"][rows, i], found["scales"][rows, i] = table[f"f_dc_{i}"], table[f"scale_{i}"]
            for i in range(4):
                found["rotations"][rows, i] = table[f"rot_{i}"]
            found["opacities"][rows] = table["opacity"]
            for i, name in enumerate(rest):
                found["sh_rest"][rows, i % bands, i // bands] = table[name]
            Gaussians(**{name: torch.from_numpy(array[rows]) for name, array in found.items()}).check_finite()
    return Gaussians(**{name: torch.from_numpy(array) for name, array in found.items()})


def _header(path: Path) -> tuple[int, list[tuple[str, str]], int]:
    """The number of rows, the columns with their types, and where the data begin."""
    with reading(path) as file:
        head = file.read(HEADER_BYTES)
    end = head.find(b"end_header\n")
    if not head.startswith(b"ply\n") or end < 0:
        raise EffbookError(f"{path} is no .ply file", "export the scene as a 3D Gaussian splatting .ply")
    try:
        lines = [line.split() for line in head[:end].decode("ascii").splitlines()[1:]]
    except UnicodeDecodeError:
        raise EffbookError(f"{path} has a broken header", "export it again") from None
    lines = [line for line in lines if line and line[0] not in ("comment", "obj_info")]
    if ["format", "binary_little_endian", "1.0"] not in lines:
        raise EffbookError(f"{path} is not binary little-endian", "export it in that format")
    elements = [line for line in lines if line[0] == "element"]
    if not elements or elements[0][1:2] != ["vertex"] or len(elements[0]) != 3 or not elements[0][2].isdigit():
        raise EffbookError(f"{path} does not begin with its vertices", "export it as a 3D Gaussian splatting .ply")
    if len(elements[0][2]) > 18:
        raise EffbookError(f"{path} claims {elements[0][2]} Gaussians, more than it holds", "copy or export it again")
    kinds: list[tuple[str, str]] = []
    for line in lines[lines.index(elements[0]) + 1 :]:
        if line[0] != "property":
            break
        if len(line) != 3 or line[1] not in TYPES:
            raise EffbookError(f"{path} has a column that is no number: {' '.join(line[1:])}", "export it again")
        kinds.append((line[2], TYPES[line[1]]))
    names = [name for name, _ in kinds]
    if len(set(names)) < len(names):
        raise EffbookError(f"{path} has a column twice", "export it again")
    wanted = [*BASE, *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    if missing := [name for name in wanted if name not in names]:
        raise EffbookError(
            f"{path} lacks the columns {', '.join(missing)}", "export it as a 3D Gaussian splatting .ply"
        )
    rest = {name for name in names if name.startswith("f_rest_")}
    if len(rest) not in REST_COUNTS or rest != {f"f_rest_{i}" for i in range(len(rest))}:
        raise EffbookError(f"{path} has {len(rest)} columns f_rest, not 0, 9, 24 or 45", "export it again")
    return int(elements[0][2]), kinds, end + len(b"end_header\n")


def _check_size(path: Path, count: int, dtype: np.dtype, start: int) -> None:
    held = (path.stat().st_size - start) // dtype.itemsize
    if count > held:
        raise EffbookError(f"{path} claims {count:,} Gaussians and holds {held:,}", "copy or export it again")
    if count == 0:
        raise EffbookError(f"{path} holds no Gaussian", "export a trained scene")
