"""Scenes as files: what is written comes back, other programs' variants are read, broken files say what is wrong."""

import errno
import io
import os

import numpy as np
import pytest
import torch
from gaussians_twin import scene
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from effbook.errors import EffbookError
from effbook.gaussians.formats import ply as ply_module
from effbook.gaussians.formats import read_ply, read_splat, read_spz, write_ply, write_sog, write_splat, write_spz
from effbook.gaussians.formats.place import replacing
from effbook.gaussians.formats.ply import columns
from effbook.gaussians.formats.spz import turned
from effbook.gaussians.model import SH_C0, Gaussians
from effbook.gaussians.project import harmonics, rotation_matrices


def single(n=50):
    gaussians = scene(n).map(torch.Tensor.float)
    gaussians.sh_dc.clamp_(-3.3, 3.3)  # what the formats in bytes hold
    return gaussians


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.tensors().values(), other.tensors().values(), strict=True))


def ply(names, rows, *, count=None, format_line="format binary_little_endian 1.0", kind="float"):
    """The bytes of a file with these columns."""
    head = ["ply", format_line, "comment made up", f"element vertex {len(rows) if count is None else count}"]
    head += [f"property {kind} {name}" for name in names] + ["end_header", ""]
    return "\n".join(head).encode() + np.asarray(rows, "<f4" if kind == "float" else "<f8").tobytes()


def table(gaussians, names):
    """The columns of a file, written from the format's description and not from the writer."""
    found = {name: torch.zeros(len(gaussians)) for name in ("nx", "ny", "nz")}
    found |= {axis: gaussians.means[:, i] for i, axis in enumerate("xyz")}
    found |= {f"f_dc_{i}": gaussians.sh_dc[:, i] for i in range(3)}
    found |= {f"scale_{i}": gaussians.scales[:, i] for i in range(3)}
    found |= {f"rot_{i}": gaussians.rotations[:, i] for i in range(4)}
    found |= {f"f_rest_{15 * channel + i}": gaussians.sh_rest[:, i, channel] for channel in range(3) for i in range(15)}
    found["opacity"] = gaussians.opacities
    return torch.stack([found[name] for name in names], dim=1).numpy()


def test_a_ply_comes_back_bit_for_bit_and_has_the_columns_of_the_format(tmp_path):
    path, gaussians = tmp_path / "scene.ply", single()
    write_ply(gaussians, path)
    assert same(read_ply(path), gaussians)
    raw = path.read_bytes()
    head, _, body = raw.partition(b"end_header\n")
    assert [line.split()[-1] for line in head.decode().splitlines() if line.startswith("property")] == columns()
    assert len(columns()) == 62
    assert body == table(gaussians, columns()).tobytes()


def test_columns_may_come_in_any_order_without_normals_and_in_double(tmp_path):
    path, gaussians = tmp_path / "scene.ply", single()
    names = sorted(name for name in columns() if name not in ("nx", "ny", "nz"))
    for kind in ("float", "double"):
        path.write_bytes(ply(names, table(gaussians, names), kind=kind))
        assert same(read_ply(path), gaussians)


def test_fewer_harmonics_are_filled_with_zeros(tmp_path):
    path, gaussians = tmp_path / "scene.ply", single()
    kept = [name for name in columns() if not name.startswith("f_rest_")]
    path.write_bytes(ply(kept, table(gaussians, kept)))
    assert (read_ply(path).sh_rest == 0).all()
    rows = np.concatenate([table(gaussians, kept), np.arange(50 * 9).reshape(50, 9)], axis=1)
    path.write_bytes(ply(kept + [f"f_rest_{i}" for i in range(9)], rows))
    found = read_ply(path).sh_rest
    assert found[1, 0].tolist() == [9.0, 12.0, 15.0]  # the first harmonic of the three channels
    assert (found[:, 3:] == 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.replace(b"property float opacity\n", b""), "lacks the columns opacity"),
        (lambda raw: raw.replace(b"f_rest_44", b"f_test_44"), "44 columns f_rest"),
        (lambda raw: raw[:-1], "claims 50 Gaussians and holds 49"),
        (lambda raw: raw.replace(b"vertex 50", b"vertex 0"), "no Gaussian"),
        (lambda raw: raw.replace(b"vertex 50", b"vertex 99999999999"), "claims 99,999,999,999"),
        (lambda raw: raw.replace(b"vertex 50", b"vertex " + b"9" * 30), "more than it holds"),
        (lambda raw: raw.replace(b"vertex 50", b"vertex -5"), "a broken header .element vertex -5"),
        (lambda raw: raw.replace(b"element vertex", b"element point"), "has no vertices"),
        (lambda raw: raw.replace(b"binary_little_endian", b"ascii"), "rows of words, or of different|holds"),
        (lambda raw: raw.replace(b"binary_little_endian 1.0", b"binary_middle_endian 1.0"), "not binary or ASCII"),
        (lambda raw: raw.replace(b"binary_little_endian 1.0", b"binary_little_endian 2.0"), "not binary or ASCII"),
        (lambda raw: raw.replace(b"float nx", b"float ny"), "a column twice"),
        (lambda raw: raw.replace(b"property float nx", b"property list uchar int nx"), "lists where each Gaussian"),
        (lambda raw: raw.replace(b"property float nx", b"property half nx"), "no number"),
        (lambda raw: b"solid " + raw, "is no .ply"),
        (lambda raw: raw[:-4] + np.float32("nan").tobytes(), "not finite"),
    ],
)
def test_a_broken_ply_says_what_is_wrong(tmp_path, change, message):
    path = tmp_path / "scene.ply"
    write_ply(single(), path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(EffbookError, match=message):
        read_ply(path)
    with pytest.raises(EffbookError, match="cannot be read"):
        read_ply(tmp_path / "missing.ply")


@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_nothing_but_our_own_error_comes_of_a_broken_ply(tmp_path, data):
    path = tmp_path / "scene.ply"
    write_ply(single(3), path)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        end = data.draw(st.sampled_from([len(raw), 120]))
        raw[data.draw(st.integers(0, end - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(raw[: data.draw(st.integers(0, len(raw)))]) if data.draw(st.booleans()) else bytes(raw))
    try:
        read_ply(path, say=[].append).check_finite()
    except EffbookError:
        return


def test_a_file_is_replaced_only_by_a_whole_one(tmp_path):
    path = tmp_path / "scene.ply"
    write_ply(single(), path)
    before = path.read_bytes()
    broken, nan = single(10), single(10)
    broken.scales = broken.scales[:5]  # fails while writing
    nan.means[3, 1] = float("nan")
    for wrong in (broken, nan):
        with pytest.raises(EffbookError):
            write_ply(wrong, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["scene.ply"]
    with pytest.raises(EffbookError, match="is not there"):
        write_ply(single(), tmp_path / "missing" / "scene.ply")


def test_what_is_not_finite_in_a_later_part_leaves_the_old_file(tmp_path, monkeypatch):
    monkeypatch.setattr(ply_module, "ROWS_AT_ONCE", 8)
    path, nan = tmp_path / "scene.ply", single(20)
    write_ply(single(), path)
    before = path.read_bytes()
    nan.opacities[17] = float("nan")
    with pytest.raises(EffbookError, match="1 values of opacities are not finite"):
        write_ply(nan, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["scene.ply"]
    path.write_bytes(before[: -4 * 62 * 2] + np.full(62 * 2, np.nan, "<f4").tobytes())
    with pytest.raises(EffbookError, match="6 values of means are not finite"):
        read_ply(path)


def test_finiteness_is_checked_part_by_part(tmp_path, monkeypatch):
    monkeypatch.setattr(ply_module, "ROWS_AT_ONCE", 8)
    checked, isfinite = [], torch.isfinite
    monkeypatch.setattr(torch, "isfinite", lambda tensor: checked.append(len(tensor)) or isfinite(tensor))
    write_ply(single(20), tmp_path / "scene.ply")
    assert (max(checked), sum(checked)) == (8, 6 * 20)
    checked.clear()
    read_ply(tmp_path / "scene.ply")
    assert (max(checked), sum(checked)) == (8, 6 * 20)


@pytest.mark.parametrize("write", [write_ply, write_splat, write_spz, write_sog])
def test_a_place_that_cannot_be_written_to_is_one_sentence_and_nothing_stays(tmp_path, write, monkeypatch):
    (tmp_path / "folder").mkdir()
    with pytest.raises(EffbookError, match="folder is a folder"):
        write(single(), tmp_path / "folder", say=[].append)
    with pytest.raises(EffbookError, match="cannot be written"):
        write(single(), tmp_path / ("x" * 256), say=[].append)

    def refused(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(EffbookError, match=r"written \(Permission denied\)"):
        write(single(), tmp_path / "scene", say=[].append)
    assert os.listdir(tmp_path) == ["folder"]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "scene.ply"
    write_ply(single(), path)
    before = path.read_bytes()

    class Full(io.BufferedWriter):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(path), "open", lambda self, mode: Full(io.FileIO(self, mode.replace("b", ""))))
    with pytest.raises(EffbookError, match=r"scene.ply cannot be written \(No space left on device\)"):
        write_ply(single(), path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["scene.ply"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_has_the_mode_that_the_users_mask_gives(tmp_path, mask, mode):
    old = os.umask(mask)
    try:
        with replacing(tmp_path / "scene.ply") as out:
            out.write(b"whole")
    finally:
        os.umask(old)
    assert (tmp_path / "scene.ply").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("write", [write_splat, write_spz, write_sog])
@pytest.mark.parametrize("name", ["means", "sh_dc", "sh_rest", "opacities", "scales", "rotations"])
def test_what_is_not_finite_is_refused_before_anything_is_written(tmp_path, write, name):
    gaussians = single()
    getattr(gaussians, name)[7] = float("nan")
    with pytest.raises(EffbookError, match=f"of {name} are not finite"):
        write(gaussians, tmp_path / "scene")
    assert os.listdir(tmp_path) == []


def test_a_splat_refuses_what_its_floats_cannot_hold(tmp_path):
    gaussians = single()
    gaussians.scales[3, 1] = 100.0  # exp(100) is more than 32 bits hold
    with pytest.raises(EffbookError, match="too large"):
        write_splat(gaussians, tmp_path / "scene.splat")
    assert os.listdir(tmp_path) == []


def order_of(gaussians):
    return gaussians.means[:, 0].argsort()


def test_a_splat_keeps_what_its_32_bytes_hold(tmp_path):
    path, gaussians = tmp_path / "scene.splat", single()
    said = []
    write_splat(gaussians, path, say=said.append)
    assert len(said) == 2  # colours are clamped, harmonics are left out
    assert path.stat().st_size == 32 * 50
    found = read_splat(path)
    ours, theirs = order_of(gaussians), order_of(found)
    assert torch.equal(found.means[theirs], gaussians.means[ours])
    torch.testing.assert_close(found.scales[theirs], gaussians.scales[ours], atol=1e-5, rtol=1e-5)
    shown = gaussians.opacities.sigmoid()[ours]
    torch.testing.assert_close(found.opacities.sigmoid()[theirs], shown, atol=0.003, rtol=0)
    colours = (0.5 + SH_C0 * gaussians.sh_dc[ours]).clamp(0, 1)
    torch.testing.assert_close(0.5 + SH_C0 * found.sh_dc[theirs], colours, atol=0.003, rtol=0)
    turns = torch.nn.functional.normalize(gaussians.rotations[ours], dim=-1)
    torch.testing.assert_close(found.rotations[theirs], turns, atol=0.009, rtol=0)
    assert (found.sh_rest == 0).all()


def test_a_broken_splat_says_what_is_wrong(tmp_path):
    path = tmp_path / "scene.splat"
    path.write_bytes(b"\0" * 33)
    with pytest.raises(EffbookError, match="no multiple of 32"):
        read_splat(path)
    path.write_bytes(np.full(16, -1.0, "<f4").tobytes())
    with pytest.raises(EffbookError, match="not positive"):
        read_splat(path)
    path.write_bytes(b"\0" * 64)  # sizes of 0, which their logarithms cannot tell
    said = []
    assert (read_splat(path, say=said.append).scales == -20).all()
    assert "6 sizes of 0 are clamped" in said[0]


def test_an_spz_keeps_what_its_bits_hold(tmp_path):
    pytest.importorskip("gsply")
    path, gaussians = tmp_path / "scene.spz", single()
    gaussians = Gaussians(**(gaussians.tensors() | {"sh_rest": gaussians.sh_rest.clamp(-0.9, 0.9)}))
    write_spz(gaussians, path)
    found = read_spz(path)
    ours, theirs = order_of(gaussians), order_of(found)
    torch.testing.assert_close(found.means[theirs], gaussians.means[ours], atol=2e-3, rtol=0)
    torch.testing.assert_close(found.scales[theirs], gaussians.scales[ours], atol=0.1, rtol=0)
    shown = gaussians.opacities.sigmoid()[ours]
    torch.testing.assert_close(found.opacities.sigmoid()[theirs], shown, atol=0.01, rtol=0)
    torch.testing.assert_close(found.sh_rest[theirs], gaussians.sh_rest[ours], atol=0.1, rtol=0)
    path.write_bytes(b"nonsense")
    with pytest.raises(EffbookError, match=r"is no \.spz"):
        read_spz(path)


def official_spz(gaussians):
    """What Niantic's converter makes of a .ply: right, down, front becomes right, up, back."""
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    directions = torch.nn.functional.normalize(torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    # The harmonics of the flipped scene are those that give the same colours from flipped directions.
    seen = torch.einsum("dk,nkc->ndc", harmonics(directions, 3), gaussians.sh_rest)
    rest = torch.linalg.pinv(harmonics(directions @ flip, 3)) @ seen
    return gaussians.means @ flip, flip @ spread_of(gaussians.rotations, gaussians.scales) @ flip, rest


def spread_of(rotations, scales):
    half = rotation_matrices(rotations) * scales.exp()[:, None]
    return half @ half.mT


def test_colours_seen_from_a_direction_are_those_of_the_turned_scene_from_the_turned_direction():
    gaussians, axes = single(), torch.tensor([1.0, -1.0, -1.0])
    directions = torch.nn.functional.normalize(torch.randn(30, 3, generator=torch.Generator().manual_seed(1)), dim=-1)
    before = torch.einsum("dk,nkc->ndc", harmonics(directions, 3), gaussians.sh_rest)
    after = torch.einsum("dk,nkc->ndc", harmonics(directions * axes, 3), turned(gaussians).sh_rest)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
    assert float((gaussians.sh_rest - turned(gaussians).sh_rest).abs().max()) > 0.1
    assert same(turned(turned(gaussians)), gaussians)


def test_an_spz_has_the_axes_that_the_official_converter_gives_it(tmp_path):
    gsply = pytest.importorskip("gsply")
    gaussians = single()
    gaussians.sh_rest.clamp_(-0.5, 0.5)
    write_spz(gaussians, tmp_path / "scene.spz")
    raw = gsply.read_spz(tmp_path / "scene.spz")  # as it lies in the file: gsply turns nothing
    means, spread, rest = official_spz(gaussians)
    np.testing.assert_allclose(raw.means, means.numpy(), atol=2e-4)
    np.testing.assert_allclose(raw.shN, rest.numpy(), atol=0.005)
    found = spread_of(torch.tensor(raw.quats), gaussians.scales)  # scales are rounded to 1 / 16
    torch.testing.assert_close(found, spread, atol=0.01 * float(spread.abs().max()), rtol=0)
    np.testing.assert_allclose(raw.scales, gaussians.scales.numpy(), atol=0.04)


def test_an_spz_comes_back_with_the_same_turns(tmp_path):
    pytest.importorskip("gsply")
    gaussians = single()
    write_spz(gaussians, tmp_path / "scene.spz")
    back = read_spz(tmp_path / "scene.spz")
    along = (torch.nn.functional.normalize(gaussians.rotations, dim=-1) * back.rotations).sum(-1).abs()
    torch.testing.assert_close(along, torch.ones(50), atol=1e-4, rtol=0)


def test_a_broken_stream_of_a_newer_spz_says_so(tmp_path):
    gsply = pytest.importorskip("gsply")
    path = tmp_path / "scene.spz"
    write_spz(single(), path)
    gsply.write_spz(path, gsply.read_spz(path), version=4)
    raw = bytearray(path.read_bytes())
    raw[32 + 6 * 16 : 32 + 6 * 16 + 4] = b"\0\0\0\0"  # where the first stream's own mark stands
    path.write_bytes(bytes(raw))
    with pytest.raises(EffbookError, match=r"no readable \.spz"):
        read_spz(path)
