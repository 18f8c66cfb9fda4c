"""Scenes as files: what is written comes back, other programs' variants are read, broken files say what is wrong."""

import numpy as np
import pytest
import torch
from gaussians_twin import scene
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from effbook.errors import EffbookError
from effbook.gaussians.formats import read_ply, read_splat, read_spz, write_ply, write_splat, write_spz
from effbook.gaussians.formats.ply import columns
from effbook.gaussians.model import SH_C0, Gaussians


def single(n=50):
    return scene(n).map(torch.Tensor.float)


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
        (lambda raw: raw.replace(b"vertex 50", b"vertex -5"), "does not begin with its vertices"),
        (lambda raw: raw.replace(b"binary_little_endian", b"ascii"), "not binary little-endian"),
        (lambda raw: raw.replace(b"float nx", b"float ny"), "a column twice"),
        (lambda raw: raw.replace(b"property float nx", b"property list uchar int nx"), "no number"),
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
        read_ply(path).check_finite()
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


def order_of(gaussians):
    return gaussians.means[:, 0].argsort()


def test_a_splat_keeps_what_its_32_bytes_hold(tmp_path):
    path, gaussians = tmp_path / "scene.splat", single()
    write_splat(gaussians, path)
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
    path.write_bytes(b"\0" * 64)
    with pytest.raises(EffbookError, match="not positive"):
        read_splat(path)


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
    with pytest.raises(EffbookError, match=r"no readable \.spz"):
        read_spz(path)
