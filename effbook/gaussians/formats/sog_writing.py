"""Writing SOG of version 2, for which `sog` has the format."""

import io
import json
import math
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from effbook.errors import EffbookError
from effbook.gaussians.formats.palette import line_codebook, nearest_on_line, palette
from effbook.gaussians.formats.place import replacing
from effbook.gaussians.formats.sog import BANDS, FIRST_MODE, IN_A_ROW, META, MOST_PALETTE
from effbook.gaussians.formats.values import Say, smallest_three, unit_quaternions, warn
from effbook.gaussians.model import Gaussians

ALL_OF = 1024  # Gaussians at most have an entry of the palette each; more share one by two, until it is full
SIDE = 4  # sides of images are multiples of so many pixels


def write_sog(gaussians: Gaussians, path: Path | str, *, most_palette: int = MOST_PALETTE, say: Say = warn) -> None:
    """Write a .sog archive of version 2, in Morton order; the same scene gives the same bytes.

    Harmonics share a palette of at most `most_palette` entries. (`say` hears nothing: all values fit.) Raises
    EffbookError for values that are not finite, before anything is written.
    """
    if not 1 <= most_palette <= MOST_PALETTE:
        raise EffbookError(f"a palette of {most_palette} entries", f"give 1 to {MOST_PALETTE:,}")
    g = gaussians.map(lambda t: t.detach().cpu().float())
    g.check_finite()
    means = g.means.double().numpy()
    logs = np.sign(means) * np.log1p(np.abs(means))
    low, high = logs.min(0), logs.max(0)
    places = np.rint((logs - low) / np.where(high > low, high - low, 1) * 65_535).astype(np.uint64)  # [N, 3]
    order = np.argsort(_morton(places), kind="stable")
    g, places = g.map(lambda t: t[torch.from_numpy(order)]), places[order]

    files: dict[str, bytes] = {}
    n = len(g)
    width = SIDE * math.ceil(math.sqrt(n) / SIDE)
    shape = (SIDE * math.ceil(n / width / SIDE), width)

    def keep(name: str, pixels: np.ndarray) -> str:
        whole = np.zeros((shape[0] * width, pixels.shape[1]), np.uint8)
        whole[:n] = pixels
        files[name] = _webp(whole.reshape(*shape, -1))
        return name

    scales, dc = g.scales.numpy(), g.sh_dc.numpy()
    largest, three = smallest_three(unit_quaternions(g.rotations))
    sizes, colours = line_codebook(scales), line_codebook(dc)
    alpha = np.rint(g.opacities.double().sigmoid().numpy() * 255)[:, None]
    modes = (FIRST_MODE + largest)[:, None]
    sided = np.rint((three / np.sqrt(2) + 0.5) * 255).clip(0, 255)
    told = {
        "version": 2,
        "count": n,
        "antialias": False,
        "means": {
            "mins": low.tolist(),
            "maxs": high.tolist(),
            "files": [
                keep("means_l.webp", (places & np.uint64(255)).astype(np.uint8)),
                keep("means_u.webp", (places >> np.uint64(8)).astype(np.uint8)),
            ],
        },
        "scales": {"codebook": sizes.tolist(), "files": [keep("scales.webp", nearest_on_line(scales, sizes))]},
        "quats": {"files": [keep("quats.webp", np.concatenate([sided, modes], axis=1).astype(np.uint8))]},
        "sh0": {
            "codebook": colours.tolist(),
            "files": [keep("sh0.webp", np.concatenate([nearest_on_line(dc, colours), alpha], axis=1).astype(np.uint8))],
        },
    }
    rest = g.sh_rest.numpy()
    used = np.flatnonzero(np.abs(rest).max(axis=(0, 2)) > 0)
    if len(used):
        bands = next(i for i, count in enumerate(BANDS) if used[-1] < count)
        most = min(most_palette, max(ALL_OF, n // 2))
        entries, labels = palette(rest[:, : BANDS[bands]].reshape(n, -1), most)
        codes = line_codebook(entries)
        image = np.zeros((-(-len(entries) // IN_A_ROW) * IN_A_ROW, BANDS[bands], 3), np.uint8)
        image[: len(entries)] = nearest_on_line(entries, codes).reshape(len(entries), -1, 3)
        files["shN_centroids.webp"] = _webp(image.reshape(-1, IN_A_ROW * BANDS[bands], 3))
        halves = np.stack([labels & 255, labels >> 8, np.zeros_like(labels)], axis=1)
        keep("shN_labels.webp", halves.astype(np.uint8))
        told["shN"] = {
            "count": len(entries),
            "bands": bands,
            "codebook": codes.tolist(),
            "files": ["shN_centroids.webp", "shN_labels.webp"],
        }
    with replacing(Path(path)) as out, zipfile.ZipFile(out, "w") as archive:
        for name, data in {META: json.dumps(told).encode(), **files}.items():
            entry = zipfile.ZipInfo(name)  # of 1980: no time is told
            entry.compress_type = zipfile.ZIP_DEFLATED if name == META else zipfile.ZIP_STORED
            archive.writestr(entry, data)


def _webp(pixels: np.ndarray) -> bytes:
    """An image [H, W, 3 or 4] without loss, also where alpha is 0."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", lossless=True, exact=True, quality=75, method=4)
    return out.getvalue()


def _morton(places: np.ndarray) -> np.ndarray:
    """Three numbers of 16 bits [N, 3] with their bits in turn: what is near in space is mostly near in this order."""
    found = np.zeros(len(places), np.uint64)
    for bit in range(16):
        for axis in range(3):
            found |= ((places[:, axis] >> np.uint64(bit)) & np.uint64(1)) << np.uint64(3 * bit + axis)
    return found
