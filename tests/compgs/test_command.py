"""The command line: from a .ply to a .compgs and back, and wrong command lines in one sentence each."""

import os
import sys
import zipfile

import numpy as np
import pytest
import torch
from gaussians_twin import scene
from typer.testing import CliRunner

from effbook.compgs import CompGSSettings, books, compress, inspect, read, write
from effbook.compgs.__main__ import app, main
from effbook.compgs.inspect import pictures_apart
from effbook.gaussians.formats import read_ply, read_sog, read_splat, read_spz, write_ply, write_spz
from effbook.gaussians.rasterise import render

SETTINGS = CompGSSettings(books=books(colour=8, covariance=16))


def single(n=200, size=-1.5):
    return scene(n, size=size).map(torch.Tensor.float)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)


def test_a_ply_becomes_a_compgs_and_a_ply_again(tmp_path):
    write_ply(single(300), tmp_path / "scene.ply")
    done = run(
        "compress", tmp_path / "scene.ply", tmp_path / "s.compgs", "--colour-codes", 16, "--covariance-codes", 32
    )
    assert done.exit_code == 0, done.output
    assert "300 Gaussians" in done.output
    assert "times smaller" in done.output
    assert "costs quality" in done.output
    assert "PSNR" in done.output
    assert "300 Gaussians" in run("info", tmp_path / "s.compgs").output
    assert run("decompress", tmp_path / "s.compgs", tmp_path / "back.ply").exit_code == 0
    back = read_ply(tmp_path / "back.ply")
    assert len(back.scales.unique(dim=0)) <= 32
    ours, theirs = (np.sort(model.means[:, 0].numpy()) for model in (back, single(300)))
    assert (ours == theirs).all()


def test_compress_tells_the_size_and_the_distance_that_it_measured_and_warns(tmp_path):
    write_ply(single(300), tmp_path / "scene.ply")
    target = tmp_path / "s[1].compgs"
    told = run("compress", tmp_path / "scene.ply", target, "--colour-codes", 16, "--covariance-codes", 32).output
    size, plain = target.stat().st_size, 236 * 300
    assert f"{plain / 1e6:,.2f} MB as 59 floats each, {size / 1e6:,.2f} MB here" in told
    assert f"{plain / size:.1f} times smaller: {target}" in told
    apart = pictures_apart(single(300), read(target).decode())
    assert f"PSNR of {min(apart):.1f} to {max(apart):.1f} dB" in told
    assert "Clustering after training costs quality" in told


def test_without_options_a_scene_is_kept_at_50_db_and_comes_back(tmp_path):
    write_ply(single(300), tmp_path / "scene.ply")
    done = run("compress", tmp_path / "scene.ply", tmp_path / "s.compgs")
    assert done.exit_code == 0, done.output
    assert "300 Gaussians" in done.output
    assert "PSNR of 5" in done.output
    told = run("info", tmp_path / "s.compgs").output
    assert "version 3, 300 Gaussians" in told
    assert "rotations: " in told
    for ending in (".ply", ".spz"):
        assert run("decompress", tmp_path / "s.compgs", tmp_path / f"back{ending}").exit_code == 0
    back = read_ply(tmp_path / "back.ply")
    ours, theirs = (np.sort(model.means[:, 0].numpy()) for model in (back, single(300)))
    assert np.abs(ours - theirs).max() < 0.05


@pytest.mark.parametrize("size", ["9kB", "9 KB", "9000", "0.009MB"])
def test_a_size_is_kept(tmp_path, size):
    write_ply(single(300), tmp_path / "scene.ply")
    done = run("compress", tmp_path / "scene.ply", tmp_path / "s.compgs", "--size", size)
    assert done.exit_code == 0, done.output
    assert 8_000 < (tmp_path / "s.compgs").stat().st_size <= 9_000


def test_infinite_logits_are_clamped_and_counted(tmp_path):
    model = single(40)
    write_ply(model, tmp_path / "scene.ply")
    data = bytearray((tmp_path / "scene.ply").read_bytes())
    at = data.index(b"end_header\n") + len(b"end_header\n") + 4 * 54  # the first Gaussian's opacity
    data[at : at + 4] = np.float32("inf").tobytes()
    (tmp_path / "scene.ply").write_bytes(data)
    done = run("compress", tmp_path / "scene.ply", tmp_path / "s.compgs", "--psnr", 30)
    assert done.exit_code == 0, done.output
    assert "clamped" in done.output


@pytest.mark.parametrize(("ending", "back"), [(".splat", read_splat), (".spz", read_spz), (".sog", read_sog)])
def test_a_compgs_becomes_a_scene_for_other_tools(tmp_path, ending, back):
    small, target = compress(single(), SETTINGS), tmp_path / f"back{ending}"
    write(small, tmp_path / "s.compgs")
    done = run("decompress", tmp_path / "s.compgs", target)
    assert done.exit_code == 0, done.output
    assert f"200 Gaussians in {target}, {target.stat().st_size / 1e6:,.2f} MB" in done.output
    ours, theirs = read(tmp_path / "s.compgs").decode(), back(target)
    nearest = torch.cdist(ours.means, theirs.means).argmin(1)
    torch.testing.assert_close(ours.means, theirs.means[nearest], atol=5e-4, rtol=0)


SMALL = ("--colour-codes", "8", "--covariance-codes", "16")
LONG = "x" * 300

# {here} is a folder with scene.ply, s.compgs, a folder `folder`, a file `file` and links to the first two.
WRONG = [
    ("compress {here}/scene.obj {here}/x.compgs", "unknown ending; choose one of .ply, .splat, .spz, .sog"),
    ("compress {here}/scene.ply {here}/x.compgs --psnr 5", "a PSNR of 5 dB; ask for 10 to 90"),
    ("compress {here}/scene.ply {here}/x.compgs --psnr 40 --size 1MB", "both --psnr and --size"),
    ("compress {here}/scene.ply {here}/x.compgs --size much", "'much' is no number of bytes"),
    ("compress {here}/scene.ply {here}/x.compgs --size 50", "do not fit into 50 bytes"),
    ("compress {here}/scene.ply {here}/x.compgs --codec steps --bitq", "--bitq belongs to codebooks"),
    ("compress {here}/scene.ply {here}/x.compgs --codec codebooks --psnr 40", "codebooks have no --psnr"),
    ("compress {here}/scene.ply {here}/x.compgs --codec zip", "'--codec'"),
    ("compress {here}/scene.ply {here}/x.compgs --code-bits 7", "not 4, 8, 16 or 32"),
    ("compress {here}/scene.ply {here}/x.compgs --iterations -3", "'--iterations'"),
    ("compress {here}/nan.ply {here}/x.compgs", "nan.ply: 1 values of means are not finite"),
    ("compress {here}/folder {here}/x.compgs", "unknown ending"),
    ("compress {here}/scene[/b].ply {here}/x.compgs", "[/b].ply cannot be read"),
    ("compress {here}/missing.ply {here}/x.compgs", "missing.ply cannot be read (No such file or directory)"),
    ("compress {here}/missing.spz {here}/x.compgs", "missing.spz cannot be read (No such file or directory)"),
    ("compress {here}/folder.ply {here}/x.compgs", "folder.ply cannot be read (Is a directory)"),
    ("compress {here}/{long}.splat {here}/x.compgs", "cannot be read (File name too long)"),
    ("compress {here}/file.ply {here}/x.compgs", "is no .ply file"),
    ("compress {here}/scene.ply {here}/a/x.compgs", "is not there; make it first"),
    ("compress {here}/scene.ply {here}", "is a folder"),
    ("compress {here}/scene.ply {here}/x.ply", "x.ply has an unknown ending; choose .compgs"),
    ("compress {here}/scene.ply {here}/file/x.compgs", "file is a file; name another place"),
    ("compress {here}/scene.ply {here}/{long}.compgs", "cannot be written (File name too long)"),
    ("compress {here}/scene.ply {here}/{long}/x.compgs", "cannot be written (File name too long)"),
    ("compress {here}/scene.ply {here}/scene.ply", "would be overwritten"),
    ("compress {here}/scene.ply {here}/folder/../scene.ply", "would be overwritten"),
    ("compress {here}/scene.ply {here}/link.ply", "would be overwritten"),
    ("compress {here}/link.ply {here}/scene.ply", "would be overwritten"),
    ("compress {here}/scene.ply {here}/hard.compgs", "would be overwritten"),
    ("compress {here}/scene.ply {here}/x.compgs --seed 99999999999999999999999", "seed is 99999999999999999999999"),
    ("compress {here}/scene.ply {here}/x.compgs --seed -1", "seed is -1"),
    ("compress {here}/scene.ply {here}/x.compgs --seed 1.5", "'--seed'"),
    ("compress {here}/scene.ply {here}/x.compgs --iterations -1", "'--iterations'"),
    ("compress {here}/scene.ply {here}/x.compgs --colour-codes 0", "a codebook has 0 codes"),
    ("compress {here}/scene.ply {here}/x.compgs --covariance-codes -5", "a codebook has -5 codes"),
    ("compress {here}/scene.ply {here}/x.compgs {here}/y.compgs", "unexpected extra argument"),
    ("compress {here}/scene.ply", "Missing argument 'COMPGS'"),
    ("compress", "Missing argument 'SCENE'"),
    ("compress {empty} {here}/x.compgs", "the name of a file is empty"),
    ("compress {here}/scene.ply {empty}", "the name of a file is empty"),
    ("compress {here}/scene.ply {here}/x.compgs --codes 4", "No such option"),
    ("decompress {here}/scene.ply {here}/x.ply", "is no .compgs file"),
    ("decompress {here}/s.compgs {here}/x.obj", "unknown ending"),
    ("decompress {here}/s.compgs {here}/x", "unknown ending"),
    ("decompress {here}/s.compgs {here}/a/x.ply", "is not there; make it first"),
    ("decompress {here}/s.compgs {here}/file/x.ply", "file is a file"),
    ("decompress {here}/s.compgs {here}/folder.ply", "is a folder"),
    ("decompress {here}/s.compgs {here}/{long}.spz", "cannot be written (File name too long)"),
    ("decompress {here}/s.compgs {here}/out.ply", "would be overwritten"),
    ("decompress {here}/missing.compgs {here}/x.ply", "missing.compgs cannot be read"),
    ("decompress {empty} {here}/x.ply", "the name of a file is empty"),
    ("decompress {here}/s.compgs {empty}", "the name of a file is empty"),
    ("decompress {here}/s.compgs {here}/x.spz --spz-version 5", "'--spz-version'"),
    ("decompress {here}/s.compgs {here}/meta.json", "unknown ending"),
    ("convert {here}/scene.ply {here}/scene.ply", "would be overwritten"),
    ("convert {here}/link.ply {here}/folder/../scene.ply", "would be overwritten"),
    ("convert {here}/scene.ply {here}/hard.ply", "would be overwritten"),
    ("convert {here}/scene.ply {here}/x.compgs", "unknown ending"),
    ("convert {here}/scene.ply {here}/a/x.sog", "is not there; make it first"),
    ("convert {here}/s.compgs {here}/x.ply", "unknown ending"),
    ("convert {here}/file.ply {here}/x.sog", "is no .ply file"),
    ("convert {here}/scene.ply", "Missing argument 'OTHER'"),
    ("info {here}/scene.ply", "is no .compgs file"),
    ("info {here}", "cannot be read (Is a directory)"),
    ("info {here}/{long}", "cannot be read (File name too long)"),
    ("info {empty}", "the name of a file is empty"),
    ("info {here}/a{newline}b", "cannot be read"),
    ("inform {here}/s.compgs", "No such command 'inform'"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A scene and the same compressed."""
    folder = tmp_path_factory.mktemp("made")
    write_ply(single(30), folder / "scene.ply")
    write(compress(single(30), SETTINGS), folder / "s.compgs")
    return folder


@pytest.fixture
def here(made, tmp_path):
    for name in ("scene.ply", "s.compgs"):
        (tmp_path / name).write_bytes((made / name).read_bytes())
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.ply").mkdir()
    for name in ("file", "file.ply"):
        (tmp_path / name).write_text("no scene")
    (tmp_path / "link.ply").symlink_to("scene.ply")
    (tmp_path / "out.ply").symlink_to("s.compgs")
    for name in ("hard.compgs", "hard.ply"):
        (tmp_path / name).hardlink_to(tmp_path / "scene.ply")
    nan = bytearray((tmp_path / "scene.ply").read_bytes())
    at = nan.index(b"end_header\n") + len(b"end_header\n")
    nan[at : at + 4] = np.float32("nan").tobytes()
    (tmp_path / "nan.ply").write_bytes(nan)
    return tmp_path


def state(folder):
    """Everything in a folder with its content: what must not have changed."""
    return {p: p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["effbook.compgs", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code


@pytest.mark.parametrize(("line", "message"), WRONG, ids=[line for line, _ in WRONG])
def test_a_wrong_command_line_is_one_sentence_and_writes_nothing(here, monkeypatch, capsys, line, message):
    before = state(here)
    words = {"{empty}": "", "{here}": str(here), "{long}": LONG, "{newline}": "\n"}
    arguments = line.split()
    for word, value in words.items():
        arguments = [argument.replace(word, value) for argument in arguments]
    assert call(monkeypatch, *arguments) in (1, 2)
    told = capsys.readouterr()
    assert message in told.err
    assert told.out == ""
    assert len(told.err.strip().splitlines()) == 1
    assert told.err.startswith("error: ")
    assert told.err.endswith(".\n")
    assert state(here) == before


def test_a_folder_that_cannot_be_written_to_is_named_before_the_work(here, monkeypatch, capsys):
    before = state(here)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    for arguments in (["compress", here / "scene.ply", here / "x.compgs"], ["decompress", here / "s.compgs", "x.ply"]):
        assert call(monkeypatch, *arguments) == 1
        assert "cannot be written to; name another place" in capsys.readouterr().err
    assert state(here) == before


def test_endings_may_be_in_capitals_and_names_of_any_bytes(here, monkeypatch, capsys):
    strange = os.fsdecode(b"s\xff.COMPGS")
    (here / "scene.ply").rename(here / "SCENE.PLY")
    assert call(monkeypatch, "compress", here / "SCENE.PLY", here / strange, *SMALL) == 0
    assert call(monkeypatch, "decompress", here / strange, here / "back.SPZ") == 0
    assert len(read_spz(here / "back.SPZ")) == 30
    assert capsys.readouterr().err == ""


def test_an_existing_other_file_is_replaced(here, monkeypatch, capsys):
    before = (here / "scene.ply").read_bytes()
    assert call(monkeypatch, "compress", here / "scene.ply", here / "s.compgs", *SMALL) == 0
    assert (here / "scene.ply").read_bytes() == before


def test_there_are_never_more_codes_than_gaussians(here):
    done = run("compress", here / "scene.ply", here / "x.compgs", "--code-bits", 32)
    assert done.exit_code == 0, done.output
    assert "codebooks have at most 30 codes" in done.output
    a, b = read(here / "x.compgs").decode(), read_ply(here / "scene.ply")
    nearest = torch.cdist(b.means, a.means).argmin(1)
    for name, tensor in b.tensors().items():  # a code for each: nothing is lost
        assert torch.equal(a.tensors()[name][nearest], tensor)


def test_codes_are_kept_in_8_bits_unless_told_otherwise(here):
    sizes = {}
    for bits in (None, 8, 16, 32):
        options = ("--code-bits", bits) if bits else ()
        assert run("compress", here / "scene.ply", here / "x.compgs", *SMALL, *options).exit_code == 0
        sizes[bits] = (here / "x.compgs").stat().st_size
        assert f"codes of {bits or 8} bits" in run("info", here / "x.compgs").output
    assert sizes[None] == sizes[8] < sizes[16] < sizes[32]


def test_infinite_opacities_are_clamped_and_counted(here):
    raw, names = bytearray((here / "scene.ply").read_bytes()), 62
    at = raw.index(b"end_header\n") + len(b"end_header\n")
    for row in (2, 5):
        raw[at + 4 * (names * row + 54) : at + 4 * (names * row + 55)] = np.float32("inf").tobytes()
    (here / "sure.ply").write_bytes(raw)
    done = run("compress", here / "sure.ply", here / "x.compgs", *SMALL)
    assert done.exit_code == 0, done.output
    assert "sure.ply: 2 infinite opacities are clamped" in done.output
    assert int((read(here / "x.compgs").decode().opacities == 16).sum()) == 2


@pytest.mark.parametrize("turn", ["--turn", "--no-turn"])
def test_a_scene_is_converted_and_turned_as_one_likes(here, turn):
    original = read_ply(here / "scene.ply")
    write_spz(original, here / "in.spz", turn=turn == "--turn", say=[].append)
    done = run("convert", here / "in.spz", here / "out.spz", turn, "--spz-version", 4)
    assert done.exit_code == 0, done.output
    assert (here / "out.spz").read_bytes()[:5] == b"NGSP\4"
    found = read_spz(here / "out.spz", turn=turn == "--turn").means
    assert float((found - original.means).abs().max()) < 0.001
    assert run("convert", here / "out.spz", here / "back.sog", turn).exit_code == 0
    found = read_sog(here / "back.sog").means
    assert float((original.means - found[torch.cdist(original.means, found).argmin(1)]).abs().max()) < 0.002
    assert run("compress", here / "out.spz", here / "x.compgs", turn, *SMALL).exit_code == 0
    assert run("decompress", here / "x.compgs", here / "last.spz", turn).exit_code == 0
    found = read_spz(here / "last.spz", turn=turn == "--turn").means
    assert float((original.means - found[torch.cdist(original.means, found).argmin(1)]).abs().max()) < 0.002


def test_what_a_format_cannot_hold_is_told(here):
    far = read_ply(here / "scene.ply")
    far.means[3, 0] = 5000.0
    write_ply(far, here / "far.ply")
    assert "1 positions beyond 2048 are clamped" in run("convert", here / "far.ply", here / "x.spz").output
    assert "harmonics above degree 0 are left out" in run("convert", here / "far.ply", here / "x.splat").output


def test_a_sog_scene_may_lie_in_a_folder(here):
    assert run("convert", here / "scene.ply", here / "x.sog").exit_code == 0
    (here / "parts").mkdir()
    zipfile.ZipFile(here / "x.sog").extractall(here / "parts")
    for place in (here / "parts", here / "parts" / "meta.json"):
        done = run("convert", place, here / "y.ply")
        assert done.exit_code == 0, done.output
        assert len(read_ply(here / "y.ply")) == 30


def masked_psnr(one, other, camera):
    """Over the pixels that one of the two covers, by loops."""
    a, b = render(one, camera), render(other, camera)
    errors = []
    for y in range(camera.height):
        for x in range(camera.width):
            if min(float(a.light[y, x]), float(b.light[y, x])) < 1 - 1 / 255:
                errors += ((a.image[y, x].clamp(0, 1) - b.image[y, x].clamp(0, 1)).double() ** 2).tolist()
    return -10 * np.log10(np.mean(errors)), len(errors) / 3 / camera.height / camera.width


def test_the_quality_that_is_printed_is_that_of_the_scene_and_not_of_the_background(monkeypatch):
    monkeypatch.setattr(inspect.cameras_around, "__kwdefaults__", {"views": 6, "size_px": 32})
    one = single(60, size=-3)
    one.means *= torch.tensor([3.0, 0.2, 0.2])  # long and thin, as a guitar is
    other = one.map(torch.clone)
    other.sh_dc += 0.2
    shares = []
    for camera, found in zip(inspect.cameras_around(one), pictures_apart(one, other), strict=True):
        wanted, share = masked_psnr(one, other, camera)
        assert found == pytest.approx(wanted, abs=1e-3)
        shares.append(share)
    assert max(shares) < 1
    assert pictures_apart(one, one) == [100.0] * 6


def test_the_sides_lie_all_around_and_the_scene_fills_their_pictures():
    one = single(300)
    one.means = one.means * torch.tensor([4.0, 1.0, 0.3]) + torch.tensor([100.0, -50.0, 7.0])
    ahead = []
    for camera in inspect.cameras_around(one):
        pose = camera.world_to_camera.double()
        ahead.append(pose[2, :3])
        seen = one.means.double() @ pose[:3, :3].T + pose[:3, 3]
        pixels = seen[:, :2] / seen[:, 2:] * camera.focal_x + torch.tensor([camera.centre_x, camera.centre_y])
        inside = ((pixels > 0) & (pixels < camera.width)).all(1)
        assert float(inside.double().mean()) > 0.75
        spread = pixels.quantile(0.95, dim=0) - pixels.quantile(0.05, dim=0)
        assert 0.7 * camera.width < float(spread.max()) < camera.width
    directions = torch.stack(ahead)
    assert float(torch.linalg.svdvals(directions).min()) > 1  # not around one axis
    assert float(directions.mean(0).norm()) < 0.2
    assert float(directions.abs().max()) < 0.99  # and along none
