"""The .spz format, by gsply: positions in 24 bits, the rest in 8, compressed.

Its axes point right, up and back (Niantic's README), where those of 3DGS's .ply point right, down and front; gsply
leaves that to its caller. Half a turn about x leads from one to the other, and back.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from zstandard import ZstdError

from effbook.errors import EffbookError
from effbook.gaussians.formats.place import reading, replacing
from effbook.gaussians.model import Gaussians
from effbook.gaussians.parameters import SH_REST

# What half a turn about x makes of positions, of quaternions w, x, y, z, and of the harmonics of degrees 1 to 3: those
# that are odd in y and z together change their sign.
AXES = (1.0, -1.0, -1.0)
QUATERNION = (1.0, 1.0, -1.0, -1.0)
HARMONICS = (-1.0, -1.0, 1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, -1.0, 1.0, -1.0, 1.0)


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


def write_spz(gaussians: Gaussians, path: Path | str) -> None:
    """Write all Gaussians with their harmonics; the same scene gives the same bytes, whenever it is written.

    Raises EffbookError for values that are not finite, before anything is written.
    """
    import gsply

    g = turned(gaussians.map(lambda t: t.detach().cpu().float()))
    g.check_finite()
    data = gsply.GSData(
        means=g.means.numpy(),
        scales=g.scales.numpy(),
        quats=torch.nn.functional.normalize(g.rotations, dim=-1).numpy(),
        opacities=g.opacities.numpy(),
        sh0=g.sh_dc.numpy(),
        shN=g.sh_rest.numpy(),
    )
    with tempfile.TemporaryDirectory() as folder, replacing(Path(path)) as out:
        gsply.write_spz(Path(folder) / "scene.spz", data)
        out.write(_timeless((Path(folder) / "scene.spz").read_bytes()))


def _timeless(stream: bytes) -> bytes:
    """A gzip stream without the time at which it was made: bytes 4 to 7 of its head (RFC 1952)."""
    return stream[:4] + bytes(4) + stream[8:]


def read_spz(path: Path | str) -> Gaussians:
    """Read a .spz file; EffbookError for one that is broken."""
    import gsply

    path = Path(path)
    with reading(path):
        pass  # gsply's own error would name neither the file nor the reason
    try:
        data = gsply.read_spz(path)
    except (ValueError, OSError, EOFError, KeyError, IndexError, MemoryError, ImportError, ZstdError) as error:
        raise EffbookError(f"{path} is no readable .spz file ({error})", "copy or export it again") from None
    n = len(data.means)
    rest = np.zeros((n, SH_REST, 3), np.float32)
    if data.shN is not None and data.shN.size:
        given = np.asarray(data.shN).reshape(n, -1, 3)
        rest[:, : given.shape[1]] = given
    gaussians = Gaussians(
        means=torch.tensor(np.asarray(data.means), dtype=torch.float32),
        sh_dc=torch.tensor(np.asarray(data.sh0).reshape(n, 3), dtype=torch.float32),
        sh_rest=torch.from_numpy(rest),
        opacities=torch.tensor(np.asarray(data.opacities).reshape(n), dtype=torch.float32),
        scales=torch.tensor(np.asarray(data.scales), dtype=torch.float32),
        rotations=torch.tensor(np.asarray(data.quats), dtype=torch.float32),
    )
    gaussians.check_finite()
    return turned(gaussians)
