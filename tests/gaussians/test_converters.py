"""Round trips against a public converter: PlayCanvas's splat-transform, if node and that package of npm are here.

`SPLAT_TRANSFORM=folder` names a folder in which `npm install @playcanvas/splat-transform` was run.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from gaussians_twin import scene

from effbook.gaussians.formats import read_ply, read_sog, read_spz, write_ply, write_sog, write_spz

TOOL = Path(os.environ.get("SPLAT_TRANSFORM", ""), "node_modules", "@playcanvas", "splat-transform", "bin", "cli.mjs")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("node") is None, reason="needs node"),
    pytest.mark.skipif(not TOOL.is_file(), reason="needs npm's @playcanvas/splat-transform, in $SPLAT_TRANSFORM"),
]


@pytest.fixture
def gaussians():
    found = scene(300, dtype=torch.float32)
    found.sh_rest.clamp_(-0.9, 0.9)
    found.sh_dc.clamp_(-3, 3)
    return found


def converted(source, target, *options):
    command = ["node", TOOL, "--quiet", "--overwrite", "--gpu", "cpu", *options, source, target]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return target


def assert_same(one, other, tolerance=2e-6):
    """All parameters, in the same order; quaternions up to their sign, opacities as shares."""
    for name, tensor in one.tensors().items():
        theirs = getattr(other, name)
        if name == "rotations":
            cosines = (
                torch.nn.functional.normalize(tensor, dim=-1) * torch.nn.functional.normalize(theirs, dim=-1)
            ).sum(-1)
            assert float(cosines.abs().min()) > 1 - 1e-5
        elif name == "opacities":
            assert float((tensor.sigmoid() - theirs.sigmoid()).abs().max()) < 0.5 / 255 + 1e-5
        else:
            torch.testing.assert_close(tensor, theirs, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("version", [2, 3, 4])
def test_our_spz_is_to_them_what_it_is_to_us(tmp_path, gaussians, version):
    write_spz(gaussians, tmp_path / "scene.spz", version=version)
    assert_same(read_spz(tmp_path / "scene.spz"), read_ply(converted(tmp_path / "scene.spz", tmp_path / "back.ply")))


def test_our_sog_is_to_them_what_it_is_to_us(tmp_path, gaussians):
    write_sog(gaussians, tmp_path / "scene.sog")
    assert_same(read_sog(tmp_path / "scene.sog"), read_ply(converted(tmp_path / "scene.sog", tmp_path / "back.ply")))


@pytest.mark.parametrize(
    ("name", "options", "read"),
    [
        ("scene.spz", ("--spz-version", "3"), read_spz),
        ("scene.spz", ("--spz-version", "4"), read_spz),
        ("scene.sog", ("--iterations", "2"), read_sog),
        ("meta.json", ("--iterations", "2"), read_sog),
        ("scene.compressed.ply", (), read_ply),
    ],
)
def test_their_files_are_to_us_what_they_are_to_them(tmp_path, gaussians, name, options, read):
    write_ply(gaussians, tmp_path / "scene.ply")
    (tmp_path / "made").mkdir()
    made = converted(tmp_path / "scene.ply", tmp_path / "made" / name, *options)
    found = read(made)
    assert_same(found, read_ply(converted(made, tmp_path / "back.ply")))
    index = torch.cdist(gaussians.means, found.means).argmin(1)
    assert float((gaussians.means - found.means[index]).abs().max()) < 0.01
    assert float((gaussians.scales - found.scales[index]).abs().max()) < 0.05
