"""SOG, .spz and compressed.ply: read as slow readers from the descriptions read them, written within their bounds."""

import gzip
import io
import json
import struct
import zipfile

import formats_twin
import numpy as np
import pytest
import torch
import zstandard
from gaussians_twin import scene
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from effbook.errors import EffbookError
from effbook.gaussians.formats import read_ply, read_sog, read_spz, write_sog, write_spz
from effbook.gaussians.formats.palette import line_codebook, nearest_on_line, palette
from effbook.gaussians.formats.values import smallest_three, unit_quaternions
from effbook.gaussians.model import Gaussians


def single(n=30, **changes):
    found = scene(n, dtype=torch.float32)
    found.sh_rest.clamp_(-0.9, 0.9)
    found.sh_dc.clamp_(-3, 3)
    for name, tensor in changes.items():
        setattr(found, name, tensor)
    return found


def assert_same_as_slow(found, slow):
    """A scene read by the library is that of the slow reader; opacities of 0 and 1 have finite logits."""
    assert len(found) == len(slow)
    for i, one in enumerate(slow):
        for name in ("means", "sh_dc", "scales", "rotations"):
            np.testing.assert_allclose(getattr(found, name)[i].numpy(), one[name], rtol=2e-6, atol=2e-6)
        assert float(found.opacities[i].sigmoid()) == pytest.approx(one["opacity"], abs=0.5 / 255 + 1e-6)
        if 0.01 < one["opacity"] < 0.99:
            assert float(found.opacities[i].sigmoid()) == pytest.approx(one["opacity"], abs=1e-6)
        bands = min(15, len(one["sh_rest"]))
        np.testing.assert_allclose(
            found.sh_rest[i, :bands].numpy(), np.reshape(one["sh_rest"][:bands], (bands, 3)), rtol=2e-6, atol=2e-6
        )
        assert (found.sh_rest[i, bands:] == 0).all()


def paired(found, gaussians):
    """The Gaussians of `found` in the order of those given: each is the nearest."""
    index = torch.cdist(gaussians.means, found.means).argmin(1)
    assert len(index.unique()) == len(gaussians)
    return found.map(lambda t: t[index])


def along(one, other):
    """Cosines of half the angles between rotations."""
    a, b = (torch.nn.functional.normalize(g.rotations.double(), dim=-1) for g in (one, other))
    return (a * b).sum(-1).abs()


# --- .spz ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [2, 3, 4])
@pytest.mark.parametrize("turn", [True, False])
def test_an_spz_of_each_version_keeps_what_its_bits_hold(tmp_path, version, turn):
    path, gaussians = tmp_path / "scene.spz", single()
    write_spz(gaussians, path, version=version, turn=turn)
    found = read_spz(path, turn=turn)
    assert float((found.means - gaussians.means).abs().max()) <= 0.5 / 4096 + 1e-6
    assert float((found.scales - gaussians.scales).abs().max()) <= 0.5 / 16 + 1e-6
    assert float((found.opacities.sigmoid() - gaussians.opacities.sigmoid()).abs().max()) <= 1 / 255
    assert float((found.sh_dc - gaussians.sh_dc).abs().max()) <= 0.5 / 255 / 0.15 + 1e-6
    assert float((found.sh_rest - gaussians.sh_rest).abs().max()) <= 0.5 / 128 + 1e-6
    assert float(along(found, gaussians).min()) > (0.99 if version == 2 else 0.99999)
    apart = (read_spz(path, turn=not turn).means - gaussians.means).abs().max(0).values
    assert apart[0] < 0.001  # half a turn about x: the other two have the other sign
    assert (apart[1:] > 0.5).all()


@pytest.mark.parametrize("version", [2, 3, 4])
def test_an_spz_is_read_as_by_the_slow_reader_and_by_others(tmp_path, version):
    path = tmp_path / "scene.spz"
    write_spz(single(), path, version=version)
    assert_same_as_slow(read_spz(path, turn=False), formats_twin.spz(path.read_bytes()))
    gsply = pytest.importorskip("gsply")
    theirs, ours = gsply.read_spz(path), read_spz(path, turn=False)
    np.testing.assert_allclose(theirs.means, ours.means.numpy(), atol=1e-6)
    np.testing.assert_allclose(theirs.scales, ours.scales.numpy(), atol=1e-6)
    np.testing.assert_allclose(np.reshape(theirs.shN, (30, 15, 3)), ours.sh_rest.numpy(), atol=1e-6)
    np.testing.assert_allclose(np.abs((theirs.quats * ours.rotations.numpy()).sum(1)), 1, atol=1e-5)


def spz_by_hand(version, degree, n=5, seed=0, flags=0, more=b""):
    """A made-up file: any bytes are values, but for rotations of more than length 1."""
    random = np.random.default_rng(seed)

    def draw(size, high=256):
        return random.integers(0, high, n * size).astype(np.uint8).tobytes()

    places = struct.pack(f"<{3 * n}e", *random.normal(size=3 * n)) if version == 1 else draw(9)
    turns = random.integers(80, 176, 3 * n).astype(np.uint8).tobytes()  # |x|, |y|, |z| below 0.4
    if version > 2:
        fields = random.integers(0, 360, (n, 3)) | random.integers(0, 2, (n, 3)) << 9
        words = random.integers(0, 4, n) << 30 | fields[:, 0] << 20 | fields[:, 1] << 10 | fields[:, 2]
        turns = words.astype("<u4").tobytes()
    bands = [0, 3, 8, 15, 24][degree]
    parts = [places, draw(1), draw(3), draw(3), turns, draw(3 * bands)]
    head = b"NGSP" + struct.pack("<IIBBB", version, n, degree, 11, flags)
    if version < 4:
        return head + b"\0" + b"".join(parts) + more
    frames = [zstandard.ZstdCompressor().compress(part) for part in parts if part]
    sizes = [len(part) for part in parts if part]
    table = b"".join(struct.pack("<QQ", len(f), size) for f, size in zip(frames, sizes, strict=True))
    return head + struct.pack("<BI12x", len(frames), 32 + len(more)) + more + table + b"".join(frames)


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_made_up_files_of_each_version_and_degree_are_read(tmp_path, version, degree):
    raw, said = spz_by_hand(version, degree), []
    for data in (raw, gzip.compress(raw)) if version < 4 else (raw,):
        (tmp_path / "scene.spz").write_bytes(data)  # versions up to 3 may lie there without gzip, too
        assert_same_as_slow(read_spz(tmp_path / "scene.spz", turn=False, say=said.append), formats_twin.spz(data))
    assert all(("degree 4" in sentence) == (degree == 4) for sentence in said)
    assert bool(said) == (degree == 4)


@pytest.mark.parametrize("version", [3, 4])
def test_records_of_makers_are_passed_over(tmp_path, version):
    plain, extended = spz_by_hand(version, 1), spz_by_hand(version, 1, flags=2, more=b"\1\0\0\0\4\0\0\0abcd")
    (tmp_path / "a.spz").write_bytes(plain)
    (tmp_path / "b.spz").write_bytes(extended)
    a, b = read_spz(tmp_path / "a.spz"), read_spz(tmp_path / "b.spz")
    assert torch.equal(a.sh_rest, b.sh_rest)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (lambda: b"", "is no .spz file"),
        (lambda: b"nonsense" * 9, "is no .spz file"),
        (lambda: spz_by_hand(3, 1)[:-1], "fewer bytes"),
        (lambda: spz_by_hand(3, 1) + b"x", "more bytes"),
        (lambda: gzip.compress(spz_by_hand(3, 1) + b"x"), "more bytes"),
        (lambda: gzip.compress(spz_by_hand(3, 1))[:-9], "fewer bytes|end in the middle"),
        (lambda: gzip.compress(spz_by_hand(3, 1))[:-8], "end in the middle"),
        (lambda: gzip.compress(spz_by_hand(3, 1))[:-1] + b"x", "cannot be decompressed|end in the middle"),
        (lambda: spz_by_hand(3, 1).replace(b"NGSP\3", b"NGSP\5"), "version 5, this reads 1 to 4"),
        (lambda: gzip.compress(spz_by_hand(4, 1)), "version 4, this reads 1 to 4"),
        (lambda: spz_by_hand(3, 1, n=0), "no Gaussian"),
        (lambda: spz_by_hand(4, 1)[:-1], "other lengths"),
        (lambda: spz_by_hand(4, 1) + b"x", "1 bytes too many"),
        (lambda: spz_by_hand(4, 1)[:40], "table of 6 streams"),
        (lambda: spz_by_hand(4, 1)[:20], "an end in its header"),
        (lambda: spz_by_hand(4, 1)[:8] + b"\xff\xff\xff\x0f" + spz_by_hand(4, 1)[12:], "fewer bytes"),
        (lambda: spz_by_hand(4, 1)[:8] + b"\x06\0\0\0" + spz_by_hand(4, 1)[12:], "other lengths"),
        (lambda: spz_by_hand(1, 0).replace(spz_by_hand(1, 0)[16:18], b"\x00\x7e"), "1 values of means are not finite"),
    ],
)
def test_a_broken_spz_says_what_is_wrong(tmp_path, raw, message):
    path = tmp_path / "scene.spz"
    path.write_bytes(raw())
    with pytest.raises(EffbookError, match=message) as told:
        read_spz(path)
    assert "scene.spz" in str(told.value)
    with pytest.raises(EffbookError, match="cannot be read"):
        read_spz(tmp_path / "missing.spz")


def test_what_an_spz_cannot_hold_is_clamped_and_counted(tmp_path):
    gaussians = single(40)
    gaussians.means[3, 1], gaussians.means[4, 0] = 5000.0, -2049.0
    gaussians.scales[7] = torch.tensor([-30.0, 7.0, 0.0])
    gaussians.sh_rest[5, 2, :2] = torch.tensor([1.5, -2.0])
    gaussians.sh_dc[9, 0] = 8.0
    said = []
    write_spz(gaussians, tmp_path / "scene.spz", say=said.append)
    counts = {sentence.split(": ")[1].split(" are")[0] for sentence in said}
    assert counts == {
        "2 positions beyond 2048",
        "2 logarithms of sizes below -10 or above 5.9",
        "2 harmonics beyond 1",
        "1 colours beyond 3.3 harmonics of degree 0",
    }
    gaussians.scales[7], gaussians.sh_rest[5], gaussians.sh_dc[9] = 0.0, 0.0, 0.0
    with pytest.warns(UserWarning, match="2 positions beyond 2048"):
        write_spz(gaussians, tmp_path / "scene.spz")  # without `say`: Python's warnings
    assert read_spz(tmp_path / "scene.spz").means[3, 1] == pytest.approx(2048, abs=0.001)


@pytest.mark.parametrize("write", [write_spz, write_sog])
def test_a_rotation_of_length_0_turns_nothing_and_warns_of_nothing(tmp_path, write, recwarn):
    gaussians = single()
    gaussians.rotations[4] = 0.0
    write(gaussians, tmp_path / "scene")
    found = {write_spz: read_spz, write_sog: read_sog}[write](tmp_path / "scene")
    assert abs(float(paired(found, gaussians).rotations[4, 0])) > 0.999
    assert not recwarn.list


def test_another_version_is_not_written(tmp_path):
    with pytest.raises(EffbookError, match=r"version 1 of \.spz cannot be written"):
        write_spz(single(), tmp_path / "scene.spz", version=1)


# --- SOG -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 7, 200])
def test_a_sog_keeps_what_its_bits_hold_and_is_read_as_by_the_slow_reader(tmp_path, n):
    path, gaussians = tmp_path / "scene.sog", single(n)
    write_sog(gaussians, path)
    found = read_sog(path)
    if n < 100:
        assert_same_as_slow(found, formats_twin.sog(path.read_bytes()))
    found = paired(found, gaussians)
    logs = gaussians.means.abs().log1p() * gaussians.means.sign()
    step = (logs.max(0).values - logs.min(0).values) / 65_535
    apart = (found.means - gaussians.means).abs()
    assert (apart <= 0.51 * step * (1 + gaussians.means.abs()) + 1e-6).all()
    assert float((found.opacities.sigmoid() - gaussians.opacities.sigmoid()).abs().max()) <= 1 / 255
    assert float(along(found, gaussians).min()) > 0.9999
    assert float((found.scales - gaussians.scales).square().mean().sqrt()) < 0.01
    assert float((found.sh_dc - gaussians.sh_dc).square().mean().sqrt()) < 0.02
    assert float((found.sh_rest - gaussians.sh_rest).square().mean().sqrt()) < 0.1


def test_a_folder_and_its_meta_json_are_read_like_the_archive(tmp_path):
    write_sog(single(), tmp_path / "scene.sog")
    (tmp_path / "folder").mkdir()
    zipfile.ZipFile(tmp_path / "scene.sog").extractall(tmp_path / "folder")
    wanted = read_sog(tmp_path / "scene.sog")
    for place in (tmp_path / "folder", tmp_path / "folder" / "meta.json"):
        assert torch.equal(read_sog(place).means, wanted.means)
    (tmp_path / "folder" / "sh0.webp").unlink()
    with pytest.raises(EffbookError, match=r"sh0\.webp cannot be read"):
        read_sog(tmp_path / "folder")


@pytest.mark.parametrize(("kept", "bands"), [(0, None), (3, 1), (8, 2), (15, 3)])
def test_only_the_bands_that_are_used_are_kept(tmp_path, kept, bands):
    gaussians = single(9)
    gaussians.sh_rest[:, kept:] = 0
    write_sog(gaussians, tmp_path / "scene.sog")
    told = json.loads(zipfile.ZipFile(tmp_path / "scene.sog").read("meta.json"))
    assert told.get("shN", {}).get("bands") == bands
    found = paired(read_sog(tmp_path / "scene.sog"), gaussians)
    assert (found.sh_rest[:, kept:] == 0).all()
    assert (found.sh_rest[:, :kept] != 0).any() == (kept > 0)
    assert_same_as_slow(read_sog(tmp_path / "scene.sog"), formats_twin.sog((tmp_path / "scene.sog").read_bytes()))


def test_a_sog_written_twice_has_the_same_bytes(tmp_path, monkeypatch):
    write_sog(single(50), tmp_path / "a.sog")
    monkeypatch.setattr("time.time", lambda: 2e9)
    write_sog(single(50), tmp_path / "b.sog")
    assert (tmp_path / "a.sog").read_bytes() == (tmp_path / "b.sog").read_bytes()


def webp(pixels, kind="WEBP"):
    out = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(
        out, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})
    )
    return out.getvalue()


def archive(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, data in files.items():
            made.writestr(name, json.dumps(data) if isinstance(data, dict) else data)
    return out.getvalue()


def first_version(bands=15, kind="WEBP", n=5):
    """A file of version 1 by hand: ranges instead of codebooks, no count but shapes."""
    random = np.random.default_rng(2)

    def image(channels, low=0, high=256, shape=(2, 3)):
        return random.integers(low, high, (*shape, channels))

    quats = image(4)
    quats[..., :3] = quats[..., :3] % 100 + 78
    quats[..., 3] = 252 + quats[..., 3] % 4
    labels = image(3)
    labels[..., 0], labels[..., 1] = labels[..., 0] % 70, 0
    files = {"means_l.webp": image(3), "means_u.webp": image(3), "scales.webp": image(3), "quats.webp": quats}
    files |= {"sh0.webp": image(4), "shN_labels.webp": labels, "shN_centroids.webp": image(3, shape=(2, 64 * bands))}
    meta = {
        "means": {
            "shape": [n, 3],
            "mins": [-1, -2, 0.5],
            "maxs": [1, 2, 0.75],
            "files": ["means_l.webp", "means_u.webp"],
        },
        "scales": {"shape": [n, 3], "mins": [-7, -6, -5], "maxs": [-1, 0, -2], "files": ["scales.webp"]},
        "quats": {"shape": [n, 4], "encoding": "quaternion_packed", "files": ["quats.webp"]},
        "sh0": {"mins": [-1, -1, -2, -4], "maxs": [1, 2, 3, 5], "files": ["sh0.webp"]},
        "shN": {"mins": -0.75, "maxs": 0.5, "quantization": 8, "files": ["shN_centroids.webp", "shN_labels.webp"]},
    }
    meta["means"]["files"] = ["means_l.webp", "means_u.webp"]
    return {"meta.json": meta, **{name: webp(pixels, kind) for name, pixels in files.items()}}


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
@pytest.mark.parametrize("bands", [3, 8, 15])
def test_the_first_version_is_read(tmp_path, bands, kind):
    raw = archive(first_version(bands, kind))
    (tmp_path / "scene.sog").write_bytes(raw)
    assert_same_as_slow(read_sog(tmp_path / "scene.sog"), formats_twin.sog(raw))


def changed(part=None, **fields):
    files = first_version()
    (files["meta.json"][part] if part else files["meta.json"]).update(fields)
    return files


def without(name):
    files = first_version()
    del files[name]
    return files


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (lambda: changed(version=3), "SOG of version 3, this reads 1 and 2"),
        (lambda: changed(version=2, count=5), "no codebook"),
        (lambda: changed(version=2, count=0), "no Gaussian"),
        (lambda: changed("means", shape=[7, 3]), "6 pixels for 7 Gaussians"),
        (lambda: changed("means", files=["means_l.webp"]), "a file too few"),
        (lambda: changed("means", mins=[0, 1]), "means.mins"),
        (lambda: changed("scales", mins=[float("nan"), 0, 0]), "scales.mins.0"),
        (lambda: changed("means", maxs=[1e9, 2, 2]), "values of means are not finite"),
        (lambda: changed("sh0", files=["../sh0.webp"]), "no file '../sh0.webp'"),
        (lambda: without("quats.webp"), "no file 'quats.webp'"),
        (lambda: without("meta.json"), "no file 'meta.json'"),
        (lambda: first_version() | {"meta.json": "{"}, "no JSON"),
        (lambda: first_version() | {"meta.json": "[]"}, "all of it is wrong"),
        (lambda: first_version() | {"sh0.webp": b"RIFF"}, "cannot be read as an image"),
        (lambda: first_version() | {"quats.webp": webp(np.zeros((2, 3, 4)))}, "none of four"),
        (lambda: first_version() | {"shN_labels.webp": webp(np.full((2, 3, 3), 255))}, "labels beyond"),
        (lambda: first_version() | {"shN_centroids.webp": webp(np.zeros((2, 100, 3)))}, "a palette of 100 pixels"),
    ],
)
def test_a_broken_sog_says_what_is_wrong(tmp_path, files, message):
    path = tmp_path / "scene.sog"
    path.write_bytes(archive(files()))
    with pytest.raises(EffbookError, match=message) as told:
        read_sog(path)
    assert "scene.sog" in str(told.value)


def test_what_is_no_archive_is_no_sog(tmp_path):
    path = tmp_path / "scene.sog"
    write_sog(single(), path)
    whole = path.read_bytes()
    for raw in (b"", b"nonsense", whole[:-30], whole[: len(whole) // 2]):
        path.write_bytes(raw)
        with pytest.raises(EffbookError, match="no readable SOG"):
            read_sog(path)
    with pytest.raises(EffbookError, match="cannot be read"):
        read_sog(tmp_path / "missing.sog")
    gaussians = single()
    gaussians.means[3] = float("nan")
    with pytest.raises(EffbookError, match="of means are not finite"):
        write_sog(gaussians, tmp_path / "new.sog")
    assert not (tmp_path / "new.sog").exists()
    for wrong in (0, 65_537):
        with pytest.raises(EffbookError, match="a palette of"):
            write_sog(single(), tmp_path / "new.sog", most_palette=wrong)


@pytest.mark.parametrize(("read", "write"), [(read_spz, write_spz), (read_sog, write_sog)])
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_nothing_but_our_own_error_comes_of_a_broken_file(tmp_path, read, write, data):
    good, path = tmp_path / "good", tmp_path / "scene.spz"
    if not good.exists():
        write(single(6), good, **({"version": 4} if write is write_spz else {}))
    raw = bytearray(good.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(raw[: data.draw(st.integers(0, len(raw)))]) if data.draw(st.booleans()) else bytes(raw))
    try:
        read(path, say=[].append).check_finite()
    except EffbookError:
        return


# --- codebooks -----------------------------------------------------------------------------------------------------


def test_a_codebook_on_the_line_is_exact_where_it_can_be_and_near_elsewhere():
    few = np.random.default_rng(0).choice([0.5, -3.0, 7.0], 100)
    codes = line_codebook(few)
    assert (codes[nearest_on_line(few, codes)] == few).all()
    many = np.random.default_rng(0).normal(size=5000)
    many[7] = 60.0  # an outlier costs the others nothing
    codes = line_codebook(many)
    found = codes[nearest_on_line(many, codes)]
    assert abs(found[7] - 60) < 0.5
    slow = np.abs(many[:, None] - codes[None]).min(1)
    np.testing.assert_allclose(np.abs(found - many), slow, atol=1e-6)
    assert np.sqrt(np.mean((found - many) ** 2)) < 0.012  # 256 even steps over -4 to 4 would give 0.009


@pytest.mark.parametrize("count", [1, 2, 50, 399, 400, 1000])
def test_a_palette_has_no_more_entries_than_wanted_and_is_exact_where_it_can_be(count, monkeypatch):
    monkeypatch.setattr("effbook.gaussians.formats.palette.AT_ONCE", 2000)  # parted several times
    vectors = np.random.default_rng(1).normal(size=(400, 9)).astype(np.float32)
    vectors = np.concatenate([vectors, vectors[:100]])
    codes, labels = palette(vectors, count)
    assert len(codes) == min(count, 400)
    error = np.square(codes[labels] - vectors).mean()
    if count >= 400:
        assert error == 0
    elif count == 1:
        np.testing.assert_allclose(codes[0], vectors[:400].mean(0), atol=1e-5)
    else:
        assert error < np.square(vectors - vectors.mean(0)).mean()
    assert (np.bincount(labels, minlength=len(codes)) > 0).mean() > 0.8


def test_three_of_four_numbers_tell_a_rotation():
    wxyz = unit_quaternions(torch.randn(50, 4, generator=torch.Generator().manual_seed(0)))
    largest, three = smallest_three(wxyz)
    for one, which, others in zip(wxyz, largest, three, strict=True):
        assert np.abs(formats_twin.rotation_of(which, others) @ one) == pytest.approx(1)
        assert abs(one[which]) == np.abs(one).max()


# --- compressed.ply ------------------------------------------------------------------------------------------------


def compressed(n=300, colours=True, harmonics=45, seed=0):
    """A made-up file and what the slow reader makes of its rows."""
    random = np.random.default_rng(seed)
    chunks = random.normal(size=(-(-n // 256), 18 if colours else 12)).astype("<f4")
    words = random.integers(0, 2**32, (n, 4), dtype=np.uint32)
    fields = random.integers(300, 724, (n, 3)).astype(np.uint32)  # three of four, no longer than 1 together
    words[:, 1] = (
        random.integers(0, 4, n).astype(np.uint32) << 30 | fields[:, 0] << 20 | fields[:, 1] << 10 | fields[:, 2]
    )
    rest = random.integers(0, 256, (n, harmonics)).astype(np.uint8)
    rest[: harmonics and 2] = [[0], [255]] if harmonics else 0
    names = [f"{end}_{axis}" for end in ("min", "max") for axis in "xyz"]
    names += [f"{end}_scale_{axis}" for end in ("min", "max") for axis in "xyz"]
    names += [f"{end}_{channel}" for end in ("min", "max") for channel in "rgb"] if colours else []
    head = ["ply", "format binary_little_endian 1.0", "comment Generated by hand", f"element chunk {len(chunks)}"]
    head += [f"property float {name}" for name in names] + [f"element vertex {n}"]
    head += [f"property uint packed_{name}" for name in ("position", "rotation", "scale", "color")]
    if harmonics:
        head += [f"element sh {n}"] + [f"property uchar f_rest_{i}" for i in range(harmonics)]
    raw = (
        "\n".join([*head, "end_header", ""]).encode()
        + chunks.tobytes()
        + words.astype("<u4").tobytes()
        + rest.tobytes()
    )
    slow = formats_twin.compressed_ply(chunks.astype(float), words.tolist(), rest.tolist() if harmonics else None)
    return raw, slow


@pytest.mark.parametrize("harmonics", [0, 9, 24, 45])
@pytest.mark.parametrize("colours", [True, False])
def test_a_compressed_ply_is_read_as_by_the_slow_reader(tmp_path, colours, harmonics):
    raw, slow = compressed(colours=colours, harmonics=harmonics)
    (tmp_path / "scene.compressed.ply").write_bytes(raw)
    assert_same_as_slow(read_ply(tmp_path / "scene.compressed.ply"), slow)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw[:-1], "claims 300 rows of sh and holds 299"),
        (lambda raw: raw[:3000], "claims 300 rows of vertex and holds|ends before its element sh"),
        (lambda raw: raw.replace(b"element chunk 2", b"element chunk 1"), "1 chunks for 300 Gaussians"),
        (lambda raw: raw.replace(b"element vertex 300", b"element vertex 0"), "no Gaussian"),
        (lambda raw: raw.replace(b"element sh 300", b"element sh 200"), "harmonics for 200 of 300"),
        (lambda raw: raw.replace(b"property uchar f_rest_44\n", b""), "44 harmonics"),
        (lambda raw: raw.replace(b"min_scale_y", b"least_scale"), "lacks the columns min_scale_y of its element chunk"),
        (lambda raw: raw.replace(b"uint packed_scale", b"int packed_scale"), "lacks the columns packed_scale"),
        (lambda raw: raw.replace(b"little", b"big"), "not binary little-endian"),
        (lambda raw: raw.replace(b"uchar f_rest_3\n", b"list uchar int f_rest_3\n"), "lists in its element sh"),
    ],
)
def test_a_broken_compressed_ply_says_what_is_wrong(tmp_path, change, message):
    path = tmp_path / "scene.ply"
    path.write_bytes(change(compressed()[0]))
    with pytest.raises(EffbookError, match=message) as told:
        read_ply(path)
    assert "scene.ply" in str(told.value)


def test_a_compressed_ply_with_what_is_not_finite_is_refused(tmp_path):
    raw = bytearray(compressed(n=10)[0])
    at = raw.index(b"end_header\n") + len(b"end_header\n")
    raw[at : at + 4] = np.float32("nan").tobytes()
    (tmp_path / "scene.ply").write_bytes(bytes(raw))
    with pytest.raises(EffbookError, match="10 values of means are not finite"):
        read_ply(tmp_path / "scene.ply")


def test_gaussians_of_every_format_have_all_parameters(tmp_path):
    (tmp_path / "a.ply").write_bytes(compressed(n=3, harmonics=9)[0])
    assert isinstance(read_ply(tmp_path / "a.ply"), Gaussians)
