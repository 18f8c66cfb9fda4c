"""The .spz format of versions 1 to 4 (Niantic's README): positions in 24 bits, the rest in 8, compressed.

Versions up to 3 are one gzip stream: a header of 16 bytes (magic, version, number of Gaussians, degree of harmonics,
fractional bits of positions, flags, 0), then positions, opacities, colours, scales, rotations and harmonics of all
Gaussians. Version 4 has a header of 32 bytes that goes on with the place of a table, and each of these as a Zstandard
frame of its own, whose lengths the table lists. Version 2 has a rotation's x, y and z in 8 bits each; from version 3 on
it is the smallest three of four in 10 bits each. Version 1 has positions in half floats.

Its axes point right, up and back, where those of 3DGS's .ply point right, down and front: half a turn about x leads
from one to the other, and back. Converters that leave the axes as they are exist, too; for their files `turn` is False.
"""

import itertools
import struct
import zlib
from pathlib import Path

import numpy as np
import torch

from effbook.errors import EffbookError
from effbook.gaussians.formats.place import reading, replacing
from effbook.gaussians.formats.values import (
    Say,
    checked,
    logits_of_bytes,
    of_smallest_three,
    smallest_three,
    unit_quaternions,
    warn,
)
from effbook.gaussians.model import Gaussians
from effbook.gaussians.parameters import SH_REST

# What half a turn about x makes of positions, of quaternions w, x, y, z, and of the harmonics of degrees 1 to 3: those
# that are odd in y and z together change their sign.
AXES = (1.0, -1.0, -1.0)
QUATERNION = (1.0, 1.0, -1.0, -1.0)
HARMONICS = (-1.0, -1.0, 1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, -1.0, 1.0, -1.0, 1.0)

MAGIC = b"NGSP"
FRACTION_BITS = 12  # of positions: 1 / 4096 of a unit, up to 2048 units
COLOUR = 0.15  # a byte holds 0.5 + 0.15 f_dc
BANDS = {0: 0, 1: 3, 2: 8, 3: 15, 4: 24}  # harmonics a channel, by degree
WRITTEN = (2, 3, 4)
EXTENDED = 2  # a flag: there are records of makers, which have no part here
LEVEL = 12  # of Zstandard
MOST_RATIO = 1 << 15  # no Zstandard frame holds more for a byte of its own
STEPS = 511 * np.sqrt(2)  # 9 bits and a sign for numbers up to sqrt(1 / 2)


def turned(gaussians: Gaussians) -> Gaussians:
    """The scene after half a turn about x; two of them change nothing."""
    g = gaussians
    return Gaussians(
        means=g.means * g.means.new_tensor(AXES),
        sh_dc=g.sh_dc,
        sh_rest=g.sh_rest * g.sh_rest.new_tensor(HARMONICS)[:, None],
        opacities=g.opacities,
        scales=g.scales,
        rotations=g.rotations * g.rotations.new_tensor(QUATERNION),
    )


# --- writing -------------------------------------------------------------------------------------------------------


def write_spz(gaussians: Gaussians, path: Path | str, *, version: int = 3, turn: bool = True, say: Say = warn) -> None:
    """Write all Gaussians with their harmonics; the same scene gives the same bytes, whenever it is written.

    `say` hears how many values lie beyond what the format holds: those are clamped. Raises EffbookError for values
    that are not finite, before anything is written, and for a version other than 2, 3 and 4.
    """
    path = Path(path)
    if version not in WRITTEN:
        raise EffbookError(f"version {version} of .spz cannot be written", "choose 2, 3 or 4")
    g = gaussians.map(lambda t: t.detach().cpu().float())
    g.check_finite()
    parts = _packed(turned(g) if turn else g, version, path, say)
    head = MAGIC + struct.pack("<IIBBB", version, len(g), 3, FRACTION_BITS, 0)
    with replacing(path) as out:
        if version == 4:
            import zstandard

            frames = [zstandard.ZstdCompressor(level=LEVEL).compress(part) for part in parts]
            out.write(head + struct.pack("<BI12x", len(parts), 32))
            for frame, part in zip(frames, parts, strict=True):
                out.write(struct.pack("<QQ", len(frame), len(part)))
            out.write(b"".join(frames))
        else:
            deflate = zlib.compressobj(6, wbits=31)  # a gzip stream that tells no time
            out.write(deflate.compress(head + b"\0" + b"".join(parts)) + deflate.flush())


def _packed(g: Gaussians, version: int, path: Path, say: Say) -> list[bytes]:
    """The six sections of a file; values that do not fit are clamped and counted."""
    beyond: dict[str, int] = {}

    def whole(values: np.ndarray, low: int, high: int, what: str) -> np.ndarray:
        numbers = np.rint(values)
        if outside := int(((numbers < low) | (numbers > high)).sum()):
            beyond[what] = outside
        return numbers.clip(low, high).astype(np.int64)

    means = g.means.double().numpy() * 2**FRACTION_BITS
    positions = whole(means, -(2**23), 2**23 - 1, "positions beyond 2048").astype("<i4")
    alphas = np.rint(g.opacities.double().sigmoid().numpy() * 255).astype(np.uint8)
    colours = whole((0.5 + COLOUR * g.sh_dc.double().numpy()) * 255, 0, 255, "colours beyond 3.3 harmonics of degree 0")
    scales = whole((g.scales.double().numpy() + 10) * 16, 0, 255, "logarithms of sizes below -10 or above 5.9")
    rest = whole(g.sh_rest.double().numpy() * 128 + 128, 0, 255, "harmonics beyond 1")
    for what, n in beyond.items():
        say(f"{path}: {n:,} {what} are clamped, as .spz holds no others")
    return [
        np.ascontiguousarray(positions.view(np.uint8).reshape(-1, 4)[:, :3]).tobytes(),
        alphas.tobytes(),
        colours.astype(np.uint8).tobytes(),
        scales.astype(np.uint8).tobytes(),
        _packed_rotations(g, version),
        rest.astype(np.uint8).tobytes(),
    ]


def _packed_rotations(g: Gaussians, version: int) -> bytes:
    wxyz = unit_quaternions(g.rotations)
    if version == 2:
        xyz = wxyz[:, 1:] * np.where(wxyz[:, :1] < 0, -1.0, 1.0)  # w, left out, is positive
        return np.rint((xyz + 1) * 127.5).astype(np.uint8).tobytes()
    largest, three = smallest_three(np.roll(wxyz, -1, axis=1))  # the file's order is x, y, z, w
    sizes = np.rint(np.abs(three) * STEPS).clip(0, 511).astype(np.uint32)
    words = largest.astype(np.uint32)
    for i in range(3):
        words = (words << np.uint32(10)) | ((three[:, i] < 0).astype(np.uint32) << np.uint32(9)) | sizes[:, i]
    return words.astype("<u4").tobytes()


# --- reading -------------------------------------------------------------------------------------------------------


def read_spz(path: Path | str, *, turn: bool = True, say: Say = warn) -> Gaussians:
    """Read a .spz file of versions 1 to 4, also one that is not compressed.

    Harmonics of degree 4 are left out, and `say` hears of it. Raises EffbookError for a file that is broken, that ends
    early or goes on, or has another version.
    """
    path = Path(path)
    with reading(path) as file:
        raw = file.read()
    version, n, degree, fraction, sections = _sections(raw, path)
    positions, alphas, colours, scales, rotations, rest = sections
    if version == 1:
        means = positions.view("<f2").reshape(n, 3).astype(np.float32)
    else:
        wide = np.zeros((n, 3, 4), np.uint8)
        wide[..., 1:] = positions.reshape(n, 3, 3)
        means = ((wide.view("<i4")[..., 0] >> 8) / 2.0**fraction).astype(np.float32)
    found = np.zeros((n, SH_REST, 3), np.float32)
    bands = BANDS[degree]
    kept = min(bands, SH_REST)
    found[:, :kept] = (rest.reshape(n, bands, 3)[:, :kept].astype(np.float32) - 128) / 128
    if bands > kept:
        say(f"{path}: its harmonics of degree 4 are left out")
    gaussians = Gaussians(
        means=torch.from_numpy(means),
        sh_dc=torch.from_numpy((colours.reshape(n, 3).astype(np.float32) / 255 - 0.5) / COLOUR),
        sh_rest=torch.from_numpy(found),
        opacities=logits_of_bytes(alphas),
        scales=torch.from_numpy(scales.reshape(n, 3).astype(np.float32) / 16 - 10),
        rotations=torch.from_numpy(_rotations(rotations, n, version)),
    )
    gaussians = checked(gaussians, path, say)
    return turned(gaussians) if turn else gaussians


def _rotations(data: np.ndarray, n: int, version: int) -> np.ndarray:
    """Quaternions w, x, y, z [n, 4]."""
    if version < 3:
        xyz = data.reshape(n, 3) / 127.5 - 1
        w = np.sqrt(np.maximum(0.0, 1 - (xyz * xyz).sum(1)))
        found = np.concatenate([w[:, None], xyz], axis=1)
        return (found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)).astype(np.float32)
    words = data.view("<u4")
    fields = np.stack([(words >> np.uint32(shift)) & np.uint32(1023) for shift in (20, 10, 0)], axis=1)
    three = (fields & np.uint32(511)) / STEPS * np.where(fields >> np.uint32(9), -1.0, 1.0)
    return np.roll(of_smallest_three((words >> np.uint32(30)).astype(np.int64), three), 1, axis=1)


def _sections(raw: bytes, path: Path) -> tuple[int, int, int, int, list[np.ndarray]]:
    """Version, number of Gaussians, degree, fractional bits and the six sections, all of the length they must have."""
    if raw[:2] == b"\x1f\x8b":
        inflate = zlib.decompressobj(wbits=31)
        head = _inflated(inflate, raw, 16, path)
    else:
        inflate, head = None, raw[:16]
    if len(head) < 16 or head[:4] != MAGIC:
        raise EffbookError(f"{path} is no .spz file", "copy or export it again")
    version, n, degree, fraction, flags, streams = struct.unpack("<IIBBBB", head[4:])
    if not 1 <= version <= 4 or (version == 4 and inflate is not None):
        raise EffbookError(f"{path} is an .spz of version {version}, this reads 1 to 4", "export it again")
    if degree not in BANDS or fraction > 23:
        raise _broken(path, f"harmonics of degree {degree} and {fraction} fractional bits")
    if n == 0:
        raise EffbookError(f"{path} holds no Gaussian", "export a trained scene")
    sizes = [n * each for each in (6 if version == 1 else 9, 1, 3, 3, 3 if version < 3 else 4, 3 * BANDS[degree])]
    if version == 4:
        return version, n, degree, fraction, _frames(raw, streams, sizes, path)
    if inflate is None:
        data = raw[16:]
    else:  # at most as much as it should have: a short file may inflate to gigabytes
        data = _inflated(inflate, inflate.unconsumed_tail, sum(sizes), path)
        more = b"" if inflate.eof else _inflated(inflate, inflate.unconsumed_tail, 1, path)  # reads the checksum, too
        if len(data) == sum(sizes) and not inflate.eof and not more:
            raise _broken(path, "an end in the middle")
        data += more
    if len(data) > sum(sizes) and flags & EXTENDED:  # what makers add comes last
        data = data[: sum(sizes)]
    if len(data) != sum(sizes):
        raise _broken(path, f"{'more' if len(data) > sum(sizes) else 'fewer'} bytes than its {n:,} Gaussians need")
    ends = np.cumsum([0, *sizes])
    whole = np.frombuffer(data, np.uint8)
    return version, n, degree, fraction, [whole[a:b] for a, b in itertools.pairwise(ends)]


def _inflated(inflate, data: bytes, most: int, path: Path) -> bytes:
    try:
        return inflate.decompress(data, most)
    except zlib.error as error:
        raise _broken(path, f"a stream that cannot be decompressed ({error})") from None


def _frames(raw: bytes, streams: int, sizes: list[int], path: Path) -> list[np.ndarray]:
    """The sections of version 4; those without bytes have no frame."""
    import zstandard

    if len(raw) < 32:
        raise _broken(path, "an end in its header")
    (table,) = struct.unpack_from("<I", raw, 16)
    if sum(sizes) > MOST_RATIO * len(raw):
        raise _broken(path, "fewer bytes than its Gaussians need")
    wanted = [size for size in sizes if size]
    if streams not in (len(wanted), len(sizes)) or table < 32 or table + 16 * streams > len(raw):
        raise _broken(path, f"a table of {streams} streams at byte {table}")
    at, frames = table + 16 * streams, []
    for i, size in enumerate(sizes if streams == len(sizes) else wanted):
        length, whole = struct.unpack_from("<QQ", raw, table + 16 * i)
        if whole != size or at + length > len(raw):
            raise _broken(path, "streams of other lengths than its Gaussians need")
        frame, at = raw[at : at + length], at + length
        try:
            told = zstandard.frame_content_size(frame) if size else 0
            if told not in (-1, size):
                raise _broken(path, "streams of other lengths than its Gaussians need")
            data = zstandard.ZstdDecompressor().decompress(frame, max_output_size=size) if size else b""
        except zstandard.ZstdError as error:
            raise _broken(path, f"a stream that cannot be decompressed ({error})") from None
        if len(data) != size:
            raise _broken(path, "streams of other lengths than its Gaussians need")
        frames.append(np.frombuffer(data, np.uint8))
    if at != len(raw):
        raise _broken(path, f"{len(raw) - at} bytes too many")
    return frames + [np.zeros(0, np.uint8)] * (len(sizes) - len(frames))


def _broken(path: Path, what: str) -> EffbookError:
    return EffbookError(f"{path} is no readable .spz file: it has {what}", "copy or export it again")
