"""What a file of version 3 tells of all its Gaussians together: units, means, predictions, principal axes.

Steps follow from it by whole-number arithmetic alone, so that a file means the same on every machine.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from effbook.compgs.canonical import from_log_opacity, from_three, log_opacity
from effbook.compgs.entropy import ONE, TAPS
from effbook.compgs.sensitivity import MOST_RATIO, Sensitivity
from effbook.gaussians.model import Gaussians
from effbook.gaussians.parameters import SH_C0, SH_REST, SHAPES, width

FINEST = 16  # units of the shortest step
_STEPS = np.array([math.isqrt(FINEST**2 << c) for c in range(64)])  # 16 x 2^(c/2), whole
FRACTION = 20  # bits after the point of scales
WIDEST = 24  # bits of an offset
CODED = ("classes", "opacities", "scales", "rotations", "sh_dc", "sh_rest")
FITTED = 30_000  # rows that predictions are fitted to
LEAST = 0.02  # of delta^2: principal axes of the harmonics that hold less are left out
MOST_STEP = 0.5  # of a colour: what our cameras don't see, others may
FAR = 2.0  # widths of the middle 99 % beyond which a place is kept in floats


def steps_of(classes: np.ndarray) -> np.ndarray:
    """Steps in units for half octaves [...] from 0 to 63."""
    return _STEPS[classes]


def finest_of(weights: Sensitivity, delta: float) -> float:
    """The step of a colour in class 0."""
    return min(delta * 2 ** (-weights.top / 2), MOST_STEP / FINEST)


def classes_of(weights: Sensitivity, delta: float) -> np.ndarray:
    """Classes [N] of the Gaussians: no colour gets a step longer than MOST_STEP, seen or not."""
    most = math.floor(2 * math.log2(MOST_STEP / finest_of(weights, delta)))
    return np.minimum(weights.classes, most)


@dataclass(eq=False)
class Stream:
    """How M columns are coded: values are mean + unit x whole numbers."""

    mean: np.ndarray  # [M]
    unit: np.ndarray  # [M]
    weights: np.ndarray  # [M, TAPS + others], of ONE
    spread: np.ndarray  # [M], in units


@dataclass(eq=False)
class Tables:
    """See the module. Harmonics have K principal axes."""

    low: np.ndarray  # [3], where cells begin
    cell: float  # side of a cell
    level: int  # 512 log2 of it
    cell_bits: int
    turn: np.ndarray  # [3] whole: half octaves at the finest, and (256ths) fewer per ln s1/s2 and ln s2/s3
    place: np.ndarray  # [4] whole, 256ths of half octaves: of class 0 and scale 1, and fewer per ln s
    colours: np.ndarray  # [3, 3], to principal axes
    harmonics: np.ndarray  # [K, 45], from principal axes
    streams: dict[str, Stream]

    # --- making ------------------------------------------------------------------------------------------------

    @classmethod
    def fit(cls, scene: Gaussians, weights: Sensitivity, delta: float) -> "Tables":
        """The tables that suit a scene, with steps of delta / sqrt(h)."""
        n, finest = len(scene), finest_of(weights, delta)
        low, side = _box(scene.means.double().numpy())
        bits = min(16, max(1, math.ceil(math.log2(max(n, 2)) / 2) + 2))
        cell = side / 2**bits
        rotation, place = weights.rotation, weights.place
        most = math.ceil(MOST_RATIO * max(0.0, rotation[1:].sum()))
        turn = np.array([min(most, 40), *np.rint(ONE * rotation[1:])], np.int64)
        offset = ONE * (2 * math.log2(finest) - place[0])
        place = np.rint([np.clip(offset, -1e6, 1e6), *(ONE * place[1:])]).astype(np.int64)
        found = cls(low, cell, round(512 * math.log2(cell)), bits, turn, place, np.eye(3), np.zeros((0, 45)), {})
        share = weights.importance / max(weights.importance.sum(), 1e-30)
        dc = scene.sh_dc.double().numpy()
        found.colours = (_axes(dc - share @ dc, share)[1] if n else np.eye(3)).astype(np.float32).astype(np.float64)
        found._fit_harmonics(scene, weights, delta)
        units = {
            "classes": np.ones(1),
            "opacities": np.full(1, finest / math.sqrt(weights.opacity)) / FINEST,
            "scales": finest / np.sqrt(weights.scales) / FINEST,
            "rotations": np.full(3, finest * 2 ** (-(rotation[0] + turn[0]) / 2)) / FINEST,
            "sh_dc": np.full(3, finest / SH_C0) / FINEST,
            "sh_rest": np.full(len(found.harmonics), finest) / FINEST,
        }
        units["scales"] = np.maximum(np.rint(units["scales"] * 2**FRACTION), 1) / 2**FRACTION
        found._fit_streams(scene, classes_of(weights, delta), units)
        return found

    def _fit_harmonics(self, scene: Gaussians, weights: Sensitivity, delta: float) -> None:
        rest = scene.sh_rest.double().numpy().reshape(len(scene), width("sh_rest"))
        if not rest.any():
            return
        scale = np.repeat(np.sqrt(weights.harmonics), 3)
        power, axes = _axes(rest * scale, weights.importance / len(rest))
        kept = power > LEAST * delta**2
        self.harmonics = (axes[kept] / scale).astype(np.float16).astype(np.float64)

    def _fit_streams(self, scene: Gaussians, classes: np.ndarray, units: dict[str, np.ndarray]) -> None:
        order = np.argsort(self.cells_of(scene.means.numpy())[0], kind="stable") if len(scene) else np.zeros(0, int)
        some = order[max(0, len(order) - FITTED) // 2 :][:FITTED]
        for name in CODED:
            unit = units[name].astype(np.float32).astype(np.float64)
            mean = np.zeros(len(unit))
            values = np.zeros((0, len(unit)))
            if len(some):
                values = self.transformed(scene, name, some, classes) / unit
                mean = np.clip(np.median(values, axis=0), -1e15, 1e15)
                if name == "sh_rest":
                    mean[:] = 0
                values = np.clip(values - np.rint(mean), -1e9, 1e9)
            importance = 2.0 ** -classes[some]
            weights, spread = _predictions(values, importance, others=0 if name == "sh_rest" else len(unit) - 1)
            self.streams[name] = Stream(np.rint(mean) * unit, unit, weights, spread)

    def transformed(self, scene: Gaussians, name: str, rows: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """What is coded of some rows, float64 [N, M]."""
        if name == "classes":
            return classes[rows][:, None].astype(np.float64)
        values = getattr(scene, name)[torch.from_numpy(rows)].double().numpy().reshape(len(rows), -1)
        if name == "opacities":
            return log_opacity(values)
        if name == "rotations":
            return values[:, 1:]
        if name == "sh_dc":
            return values @ self.colours.T
        return values @ self.analysis.T if name == "sh_rest" else values

    @property
    def analysis(self) -> np.ndarray:
        """[K, 45]: harmonics to principal axes."""
        return np.linalg.pinv(self.harmonics.T) if len(self.harmonics) else np.zeros((0, width("sh_rest")))

    # --- steps and places --------------------------------------------------------------------------------------

    def _scales(self, known: np.ndarray) -> np.ndarray:
        """Decoded ln s [N, 3], whole, with FRACTION bits after the point."""
        told = self.streams["scales"]
        mean, unit = (np.rint(np.ldexp(a, FRACTION)).astype(np.int64) for a in (told.mean, told.unit))
        return np.clip(mean + unit * known, -(40 << FRACTION), 40 << FRACTION)

    def steps_of_turns(self, classes: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Steps [N] in units: the rounder a Gaussian, the less a turn is seen."""
        ratios = np.clip(-np.diff(self._scales(known), axis=1), 0, int(MOST_RATIO) << FRACTION) >> (FRACTION - 8)
        fewer = (ratios * self.turn[1:] >> 8).sum(axis=1)
        return steps_of(np.clip(classes + self.turn[0] - ((fewer + ONE // 2) >> 8), 0, 63))

    def widths(self, classes: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Bits of each Gaussian's offsets in its cell, [N, 3]: the smaller it is, the more."""
        fewer = ((self._scales(known) >> (FRACTION - 8)) * self.place[1:] >> 8).sum(axis=1)
        steps = ONE * classes + self.place[0] - fewer
        return np.repeat(np.clip((self.level - steps + ONE) >> 9, 0, WIDEST)[:, None], 3, axis=1)

    def cells_of(self, means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Morton codes of the cells [N], and where in them places lie [N, 3], outside of [0, 1] for far ones."""
        places = (means.astype(np.float64) - self.low) / self.cell
        whole = np.clip(np.floor(places), 0, 2**self.cell_bits - 1).astype(np.int64)
        return _interleaved(whole, self.cell_bits), places - whole

    # --- back --------------------------------------------------------------------------------------------------

    def decoded(self, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Parameters by name, float32, of decoded numbers."""
        values = {name: self.streams[name].mean + self.streams[name].unit * found[name] for name in CODED[1:]}
        cells, offsets, widths = found["places"]
        parts = _separated(cells, self.cell_bits) + np.ldexp(offsets + 0.5, -widths)
        n = len(cells)
        rest = values["sh_rest"].astype(np.float32) @ self.harmonics.astype(np.float32)
        return {
            "means": (self.low + self.cell * parts).astype(np.float32),
            "sh_dc": np.linalg.solve(self.colours, values["sh_dc"].T).T.astype(np.float32),
            "sh_rest": rest.reshape(n, SH_REST, 3),
            "opacities": from_log_opacity(values["opacities"][:, 0]),
            "scales": values["scales"].astype(np.float32),
            "rotations": from_three(values["rotations"]),
        }

    def exactly(self, part: Gaussians, places: np.ndarray, rows: np.ndarray) -> bytes:
        """Bytes of what is kept in floats: means of some rows, and all parameters of others."""
        counts = np.array([len(places), len(rows)], "<u4")
        whole = [getattr(part, name)[torch.from_numpy(rows)].numpy().astype("<f4").tobytes() for name in SHAPES]
        means = part.means.numpy()[places].astype("<f4").tobytes()
        return b"".join([counts.tobytes(), places.astype("<u4").tobytes(), means, rows.astype("<u4").tobytes(), *whole])

    @staticmethod
    def restored(parts: dict[str, np.ndarray], payload: bytes) -> Gaussians:
        """A scene of decoded parameters and of what `exactly` kept. Raises ValueError for bytes that do not fit."""
        n, at = len(parts["means"]), 8
        if len(payload) < 8:
            raise ValueError
        places, rows = (int(count) for count in np.frombuffer(payload, "<u4", 2))

        def taken(kind: str, *shape: int) -> np.ndarray:
            nonlocal at
            count = math.prod(shape)
            found = np.frombuffer(payload, kind, count, at).reshape(shape)  # ValueError beyond the end
            at += 4 * count
            if kind == "<u4" and (found >= n).any():
                raise ValueError
            return found

        index = taken("<u4", places)
        parts["means"][index] = taken("<f4", places, 3)
        index = taken("<u4", rows)
        for name, shape in SHAPES.items():
            parts[name][index] = taken("<f4", rows, *shape)
        if at != len(payload):
            raise ValueError
        return Gaussians(**{name: torch.from_numpy(parts[name]) for name in SHAPES})

    # --- bytes -------------------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """All of it, little-endian, one array after the other."""
        arrays = [(self.low, "<f8"), (self.cell, "<f8"), (self.level, "<i8"), (self.turn, "<i8"), (self.place, "<i8")]
        arrays += [(self.colours, "<f4"), (self.harmonics, "<f2")]
        for name in CODED:
            told = self.streams[name]
            arrays += [(told.mean, "<f8"), (told.unit, "<f8"), (told.weights, "<i2"), (told.spread, "<i4")]
        return b"".join(np.asarray(array).astype(kind).tobytes() for array, kind in arrays)

    @classmethod
    def from_bytes(cls, data: bytes, harmonics: int, cell_bits: int) -> "Tables":
        """The inverse of `to_bytes`. Raises ValueError for bytes that do not fit."""
        at = 0

        def taken(kind: str, *shape: int) -> np.ndarray:
            nonlocal at
            count = math.prod(shape)
            found = np.frombuffer(data, kind, count, at).reshape(shape)
            at += found.nbytes
            if kind[1] == "f" and not np.isfinite(found).all():
                raise ValueError
            return found.astype(np.float64 if kind[1] == "f" else np.int64)

        low, cell, level = taken("<f8", 3), float(taken("<f8", 1)[0]), int(taken("<i8", 1)[0])
        turn, place = taken("<i8", 3), taken("<i8", 4)
        colours, axes = taken("<f4", 3, 3), taken("<f2", harmonics, width("sh_rest"))
        streams = {}
        for name, columns in zip(CODED, (1, 1, 3, 3, 3, harmonics), strict=True):
            others = 0 if name == "sh_rest" else columns - 1
            mean, unit = taken("<f8", columns), taken("<f8", columns)
            weights, spread = taken("<i2", columns, TAPS + others), taken("<i4", columns)
            if (spread < 1).any():
                raise ValueError
            streams[name] = Stream(mean, unit, weights, spread)
        if at != len(data) or max(map(abs, (level, *turn.tolist(), *place.tolist()))) > 1 << 24:
            raise ValueError
        return cls(low, cell, level, cell_bits, turn, place, colours, axes, streams)


def _box(means: np.ndarray) -> tuple[np.ndarray, float]:
    """The corner and the side of a cube that holds all places but those that are far from nearly all others."""
    if len(means) == 0:
        return np.zeros(3), 1.0
    inner = np.quantile(means, (0.005, 0.995), axis=0)
    room = FAR * (inner[1] - inner[0])
    low, high = np.maximum(means.min(0), inner[0] - room), np.minimum(means.max(0), inner[1] + room)
    least = max(1e-6 * float(np.abs(inner).max()), 1e-12)
    return low, max(float((high - low).max()) * (1 + 1e-9), least)


def _axes(values: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Principal axes: mean squares from large to small, and the axes as rows."""
    power, axes = np.linalg.eigh((values * share[:, None]).T @ values)
    return power[::-1], axes.T[::-1]


def _predictions(values: np.ndarray, importance: np.ndarray, *, others: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights [M, TAPS + others] by least squares, and mean sizes of what is left [M], both whole."""
    n, m = values.shape
    weights, spread = np.zeros((m, TAPS + others), np.int64), np.ones(m, np.int64)
    if n <= 4 * TAPS:
        return weights, np.maximum(np.abs(values).mean(axis=0), 1).astype(np.int64) if n else spread
    root = np.sqrt(importance[TAPS:])
    for j in range(m):
        before = [values[TAPS - 1 - t : n - 1 - t, j] for t in range(TAPS)]
        beside = [values[TAPS:, k] for k in range(min(j, others))]
        columns, wanted = np.stack(before + beside, axis=1), values[TAPS:, j]
        left = columns * root[:, None]
        square = left.T @ left
        square += np.eye(len(square)) * (1e-6 * np.trace(square) + 1e-9)
        found = np.rint(np.clip(np.linalg.solve(square, left.T @ (wanted * root)), -8, 8) * ONE)
        if np.abs(found[:TAPS]).sum() > ONE:  # errors must not grow from row to row
            found[:TAPS] = np.trunc(found[:TAPS] * ONE / np.abs(found[:TAPS]).sum())
        weights[j, : len(found)] = found
        spread[j] = np.clip(np.abs(wanted - columns @ (found / ONE)).mean(), 1, 2**31 - 1)
    return weights, spread


def _interleaved(whole: np.ndarray, bits: int) -> np.ndarray:
    """Morton codes [N] of cells [N, 3]."""
    codes = np.zeros(len(whole), np.int64)
    for bit in range(bits):
        for a in range(3):
            codes |= ((whole[:, a] >> bit) & 1) << (3 * bit + a)
    return codes


def _separated(codes: np.ndarray, bits: int) -> np.ndarray:
    """The inverse of `_interleaved`."""
    whole = np.zeros((len(codes), 3), np.int64)
    for bit in range(bits):
        for a in range(3):
            whole[:, a] |= ((codes >> (3 * bit + a)) & 1) << bit
    return whole
