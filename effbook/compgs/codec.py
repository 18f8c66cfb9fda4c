"""The codec for scenes that are trained already: version 3 of the `.compgs` file.

    magic 8, version 2, length of the header 4, header (JSON), CRC-32 4
    sections: length 8, coding 1, payload, CRC-32 4 (of all three), as in version 2

First comes a section of tables (`tables.Tables`), then the Gaussians, `rows` at a time, nine sections each: classes,
opacities, scales, rotations, cells, offsets, colours, harmonics, and what is kept exactly.

Each Gaussian is first brought into one of 24 equal forms (`canonical`). All values are uniformly quantised, and the
step is as long as pictures allow (`sensitivity`): a Gaussian's class, half octaves of the step, holds for all its
values; the steps of places and turns depend on its decoded scales besides. Gaussians are ordered along a Morton curve
over cells; cells are kept as differences, places as offsets in their cell. Other values are predicted from the
Gaussians before, and what is left goes through the range coder (`entropy`). Colours and harmonics are turned to their
principal axes first, and axes that hold nothing are left out. Where a value is too far from the others, its Gaussian is
kept in floats.

The dissertation's codebooks are version 2, in `container`.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from effbook.compgs import streams
from effbook.compgs.canonical import MOST_LOGIT, clamped, sorted_axes
from effbook.compgs.entropy import TAPS, decode, encode, pack_bits, unpack_bits
from effbook.compgs.layout import MOST_RATIO
from effbook.compgs.sensitivity import Sensitivity, measure, views_of
from effbook.compgs.streams import Header, Section
from effbook.compgs.tables import Tables, classes_of, steps_of
from effbook.errors import EffbookError
from effbook.gaussians.formats.place import replacing
from effbook.gaussians.model import Gaussians
from effbook.gaussians.parameters import SHAPES

ROWS = 1 << 18
DEAD = {"sh_rest": 10, "sh_dc": 4, "scales": 4, "rotations": 4}  # in 64ths of a step
UNPREDICTED = (np.zeros((1, TAPS), np.int64), np.full(1, 1 << 12))  # weights and spread of a single column
MOST_STEPS = 1 << 40  # of a value from the mean: beyond, its Gaussian is kept in floats


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scene in its canonical form with what its parameters weigh, for files of any size."""

    scene: Gaussians  # float32, axes sorted
    weights: Sensitivity
    moved: dict[str, int] = field(default_factory=dict)  # infinite values that were moved, by parameter

    def __len__(self) -> int:
        return len(self.scene)


def prepare(scene: Gaussians, cameras: list | None = None) -> Prepared:
    """Sort the axes and measure what parameters weigh, in pictures of `cameras` (default: from all sides).

    Raises EffbookError for NaN. Infinite logits and scales of -inf are moved, and counted in `moved`.
    """
    scene, moved = clamped(scene)
    scales, rotations = sorted_axes(scene.scales.numpy(), scene.rotations.numpy())
    parts = scene.tensors() | {"scales": torch.from_numpy(scales), "rotations": torch.from_numpy(rotations).float()}
    scene = Gaussians(**parts)
    if cameras is None:
        cameras = views_of(scene) if len(scene) else []
    return Prepared(scene, measure(scene, cameras), moved)


def pack(prepared: Prepared, delta: float) -> tuple[bytes, Gaussians]:
    """The file's bytes, and the scene as it is read back. `delta`: the error per value, in colours of one pixel."""
    scene, n = prepared.scene, len(prepared)
    tables = Tables.fit(scene, prepared.weights, delta)
    header = Header(gaussians=n, rows=ROWS, harmonics=len(tables.harmonics), cell_bits=tables.cell_bits)
    cells, fractions = tables.cells_of(scene.means.numpy()) if n else (np.zeros(0, np.int64), np.zeros((0, 3)))
    order, classes = np.argsort(cells, kind="stable"), classes_of(prepared.weights, delta)
    out, found = [header.to_bytes(), Section.of_bytes(tables.to_bytes())], []
    for start in range(0, n, ROWS):
        rows = order[start : start + ROWS]
        part = scene.map(lambda t, r=rows: t[torch.from_numpy(r)])
        sections, back = _pack_rows(part, classes[rows], cells[rows], fractions[rows], tables)
        out += sections
        found.append(back)
    size = sum(map(len, out))
    if 236 * n > MOST_RATIO * size:  # a file that unpacks to more would be refused
        out.append(Section.of_bytes(bytes(-(-236 * n // MOST_RATIO) - size)))
    return b"".join(out), _joined(found)


def unpack(data: bytes, name: object = "the file") -> Gaussians:
    """The inverse of `pack`. Raises EffbookError for bytes that `pack` would not have written."""
    with streams.Reader(data, name) as reader:
        header = reader.header
        try:
            tables = Tables.from_bytes(reader.next(), header.harmonics, header.cell_bits)
        except ValueError:
            reader.check(False)
        found = []
        for start in range(0, header.gaussians, header.rows):
            found.append(_unpack_rows(reader, min(header.rows, header.gaussians - start), tables))
        return _joined(found)


def write(scene: Gaussians | Prepared, path: Path | str, *, delta: float) -> int:
    """Write a scene and return the file's bytes; an existing file is replaced only when the new one is complete."""
    data, _ = pack(scene if isinstance(scene, Prepared) else prepare(scene), delta)
    with replacing(Path(path)) as out:
        return out.write(data)


def read(path: Path | str) -> Gaussians:
    """The scene of a `.compgs` file, of this version or of an earlier one."""
    if streams.version_of(path) == streams.VERSION:
        return unpack(streams.load(Path(path)), path)
    from effbook.compgs import container

    return container.read(path).decode()


# --- rows ----------------------------------------------------------------------------------------------------------


def _pack_rows(part, classes, cells, fractions, tables: Tables) -> tuple[list[bytes], Gaussians]:
    n = len(part)
    found: dict[str, np.ndarray] = {}
    sections: list[bytes] = []

    def code(name: str, steps: np.ndarray) -> np.ndarray:
        told = tables.streams[name]
        whole = np.rint((tables.transformed(part, name, every, classes) - told.mean) / told.unit)
        far = ~(np.abs(whole) < MOST_STEPS).all(axis=1)
        whole[far] = 0
        exact[far] = True
        room = np.empty(9 * whole.size + 64, np.uint8)
        size, found[name] = encode(whole.astype(np.int64), steps, told.weights, told.spread, DEAD.get(name, 0), room)
        sections.append(Section.of_numbers(room[:size].tobytes()))
        return found[name]

    every = np.arange(n)
    exact = np.zeros(n, bool)
    exact |= part.opacities.numpy() > MOST_LOGIT
    code("classes", np.ones(n, np.int64))
    steps = steps_of(classes)
    code("opacities", steps)
    scales = code("scales", steps)
    code("rotations", tables.steps_of_turns(classes, scales))
    widths = tables.widths(classes, scales)
    offsets = np.floor(np.ldexp(np.clip(fractions, 0, 1 - 1e-9), widths)).astype(np.int64)
    ones = np.ones(n, np.int64)
    room = np.empty(9 * n + 64, np.uint8)
    size, _ = encode(_folded(np.diff(cells, prepend=0))[:, None], ones, *UNPREDICTED, 0, room)
    sections += [
        Section.of_numbers(room[:size].tobytes()),
        Section.of_bytes(pack_bits(offsets.ravel(), widths.ravel())),
    ]
    found["places"] = (cells, offsets, widths)
    code("sh_dc", steps)
    code("sh_rest", steps)
    places = np.flatnonzero(((fractions < 0) | (fractions > 1)).any(axis=1))
    payload = tables.exactly(part, places, np.flatnonzero(exact))
    sections.append(Section.of_bytes(payload))
    return sections, tables.restored(tables.decoded(found), payload)


def _unpack_rows(reader: streams.Reader, n: int, tables: Tables) -> Gaussians:
    found: dict[str, np.ndarray] = {}

    def code(name: str, steps: np.ndarray) -> np.ndarray:
        told, payload = tables.streams[name], np.frombuffer(reader.next(), np.uint8)
        found[name], used = decode(payload, n, steps, told.weights, told.spread)
        reader.check(used == len(payload))
        return found[name]

    classes = code("classes", np.ones(n, np.int64))[:, 0] + int(tables.streams["classes"].mean[0])
    reader.check(((classes >= 0) & (classes < 64)).all())
    steps = steps_of(classes)
    code("opacities", steps)
    scales = code("scales", steps)
    code("rotations", tables.steps_of_turns(classes, scales))
    widths, payload = tables.widths(classes, scales), np.frombuffer(reader.next(), np.uint8)
    differences, used = decode(payload, n, np.ones(n, np.int64), *UNPREDICTED)
    reader.check(used == len(payload))
    cells = np.cumsum(_unfolded(differences[:, 0])) & ((1 << 3 * tables.cell_bits) - 1)
    try:
        offsets = unpack_bits(reader.next(), widths.ravel()).reshape(n, 3)
    except ValueError:
        reader.check(False)
    found["places"] = (cells, offsets, widths)
    code("sh_dc", steps)
    code("sh_rest", steps)
    try:
        scene = tables.restored(tables.decoded(found), reader.next())
        scene.check_finite()
    except (ValueError, EffbookError):
        reader.check(False)
    return scene


def _folded(steps: np.ndarray) -> np.ndarray:
    """Whole numbers from 0 on as those with a sign that the range coder folds into them: 0, -1, 1, -2..."""
    return np.where(steps & 1, -(steps + 1) // 2, steps // 2)


def _unfolded(numbers: np.ndarray) -> np.ndarray:
    """The inverse of `_folded`."""
    return np.where(numbers < 0, -2 * numbers - 1, 2 * numbers)


def _joined(parts: list[Gaussians]) -> Gaussians:
    """The parts as one scene; without any, an empty one."""
    if not parts:
        return Gaussians(**{name: torch.zeros(0, *shape) for name, shape in SHAPES.items()})
    return Gaussians(**{name: torch.cat([getattr(part, name) for part in parts]) for name in SHAPES})
