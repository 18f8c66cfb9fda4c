"""The .splat format: 32 bytes a Gaussian without harmonics, as small web viewers read it. It has no header."""

from pathlib import Path

import numpy as np
import torch

from effbook.errors import EffbookError
from effbook.gaussians.formats.place import reading, replacing
from effbook.gaussians.formats.values import Say, checked, logits_of_bytes, warn
from effbook.gaussians.model import Gaussians
from effbook.gaussians.parameters import SH_C0, SH_REST

ROW = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("rotation", "u1", 4)])


def write_splat(gaussians: Gaussians, path: Path | str, *, say: Say = warn) -> None:
    """Write positions, scales, colours (degree 0 only), opacities and rotations, the largest and most opaque first.

    `say` hears how many colours lie outside of 0 to 1 and are clamped, and of harmonics that are left out. Raises
    EffbookError for values that are not finite, before anything is written.
    """
    g = gaussians.map(lambda t: t.detach().cpu().double())
    g.check_finite()
    opacities = g.opacities.sigmoid()
    order = (-(g.scales.sum(-1).exp() * opacities)).argsort(stable=True)
    rows = np.zeros(len(g), ROW)
    rows["mean"] = g.means[order].float().numpy()
    rows["scale"] = g.scales.exp()[order].float().numpy()
    if not (np.isfinite(rows["mean"]).all() and np.isfinite(rows["scale"]).all()):
        raise EffbookError("some Gaussians are too large for the 32 bits of a .splat", "remove them or train again")
    colours = torch.cat([0.5 + SH_C0 * g.sh_dc, opacities[:, None]], dim=1)[order]
    if outside := int(((colours < 0) | (colours > 1)).sum()):
        say(f"{path}: {outside:,} colours outside of 0 to 1 are clamped, as .splat holds no others")
    if bool(g.sh_rest.any()):
        say(f"{path}: the harmonics above degree 0 are left out, as .splat holds none")
    rows["rgba"] = (colours.clamp(0, 1) * 255).round().byte().numpy()
    turns = torch.nn.functional.normalize(g.rotations, dim=-1)[order]
    rows["rotation"] = (turns * 128 + 128).round().clamp(0, 255).byte().numpy()
    with replacing(Path(path)) as out:
        out.write(rows.tobytes())


def read_splat(path: Path | str, *, say: Say = warn) -> Gaussians:
    """Read a .splat file; what 8 bits have rounded away stays so, and harmonics above degree 0 are zero.

    `say` hears of sizes of 0, which are clamped. Raises EffbookError for a file that is broken.
    """
    path = Path(path)
    with reading(path) as file:
        raw = file.read()
    if not raw or len(raw) % ROW.itemsize:
        raise EffbookError(f"{path} has {len(raw)} bytes, no multiple of {ROW.itemsize}", "copy or export it again")
    rows = np.frombuffer(raw, ROW)
    rgba = torch.from_numpy(rows["rgba"].astype(np.float32)) / 255
    scales = torch.from_numpy(rows["scale"].copy())
    if not torch.isfinite(scales).all() or not (scales >= 0).all():
        raise EffbookError(f"{path} has scales that are not positive", "export it again")
    gaussians = Gaussians(
        means=torch.from_numpy(rows["mean"].copy()),
        sh_dc=(rgba[:, :3] - 0.5) / SH_C0,
        sh_rest=torch.zeros(len(rows), SH_REST, 3),
        opacities=logits_of_bytes(rows["rgba"][:, 3]),
        scales=scales.log(),
        rotations=(torch.from_numpy(rows["rotation"].astype(np.float32)) - 128) / 128,
    )
    return checked(gaussians, path, say)
