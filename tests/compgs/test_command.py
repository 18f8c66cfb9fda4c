"""The command line: from a .ply to a .compgs and back, and wrong command lines in one sentence each."""

import os
import sys

import numpy as np
import pytest
import torch
from gaussians_twin import scene
from typer.testing import CliRunner

from effbook.compgs import CompGSSettings, books, compress, read, write
from effbook.compgs.__main__ import app, main
from effbook.compgs.inspect import pictures_apart
from effbook.gaussians.formats import read_ply, read_splat, read_spz, write_ply

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


@pytest.mark.parametrize(("ending", "back"), [(".splat", read_splat), (".spz", read_spz)])
def test_a_compgs_becomes_a_scene_for_other_tools(tmp_path, ending, back):
    small, target = compress(single(), SETTINGS), tmp_path / f"back{ending}"
    write(small, tmp_path / "s.compgs")
    done = run("decompress", tmp_path / "s.compgs", target)
    assert done.exit_code == 0, done.output
    assert f"200 Gaussians in {target}, {target.stat().st_size / 1e6:,.2f} MB" in done.output
    ours, theirs = read(tmp_path / "s.compgs").decode(), back(target)
    a, b = (model.means[model.means[:, 0].argsort()] for model in (ours, theirs))
    torch.testing.assert_close(a, b, atol=2e-4, rtol=0)


SMALL = ("--colour-codes", "8", "--covariance-codes", "16")
LONG = "x" * 300

# {here} is a folder with scene.ply, s.compgs, a folder `folder`, a file `file` and links to the first two.
WRONG = [
    ("compress {here}/scene.ply {here}/x.compgs", "larger than the 30 Gaussians"),
    ("compress {here}/scene.obj {here}/x.compgs", "unknown ending; choose one of .ply, .splat, .spz"),
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
    ("compress {here}/scene.ply {here}/x.compgs --colour-codes 99999999999999999999", "larger than the 30 Gaussians"),
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
    (tmp_path / "hard.compgs").hardlink_to(tmp_path / "scene.ply")
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
