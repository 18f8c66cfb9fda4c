"""Every writer gives the same bytes for the same scene, whenever it is called: checksums tell artifacts apart."""

import time

import pytest
import torch
from gaussians_twin import scene

from effbook.compgs import BIT_QUANTISED, CompGSSettings, Storage, books, compress, write
from effbook.gaussians.densify import PullMeter
from effbook.gaussians.formats import read_spz, write_ply, write_sog, write_splat, write_spz
from effbook.gaussians.optimise import Adam
from effbook.gaussians.train import State, save_state

FEW, MANY = 200, 20_000  # an .spz of more than a megabyte is compressed in parts


def write_compressed(gaussians, path):
    small = compress(gaussians, CompGSSettings(books=books(colour=8, covariance=16)), iterations=2)
    write(small, path, Storage(plain_bits=BIT_QUANTISED.plain_bits, entropy=True))


def write_state(gaussians, path):
    generator = torch.Generator().manual_seed(1)
    state = State(gaussians=gaussians, adam=Adam(gaussians), meter=PullMeter(len(gaussians)), generator=generator)
    save_state(state, path)


@pytest.mark.parametrize("n", [FEW, MANY])
@pytest.mark.filterwarnings("ignore:.*are clamped|.*are left out")
@pytest.mark.parametrize("write_it", [write_ply, write_splat, write_spz, write_sog, write_compressed, write_state])
def test_a_scene_written_twice_has_the_same_bytes(tmp_path, monkeypatch, write_it, n):
    gaussians = scene(n, dtype=torch.float32)
    write_it(gaussians, tmp_path / "first")
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 10_000_000)
    write_it(gaussians, tmp_path / "other name")
    assert (tmp_path / "first").read_bytes() == (tmp_path / "other name").read_bytes()


def test_an_spz_without_a_time_is_read_by_others(tmp_path):
    import gzip

    write_spz(scene(FEW, dtype=torch.float32), tmp_path / "scene.spz", say=[].append)
    raw = (tmp_path / "scene.spz").read_bytes()
    assert raw[:4] == b"\x1f\x8b\x08\x00"  # no name either
    assert raw[4:8] == bytes(4)
    assert gzip.decompress(raw)[:4] == b"NGSP"
    assert len(read_spz(tmp_path / "scene.spz")) == FEW
