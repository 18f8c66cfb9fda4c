"""Atomic writing: the old or the new, whole, and nothing left lying but by a kill."""

import os
import subprocess
import sys

import pytest

from effbook.files import leftovers, placed, replace, size_bytes, write_atomically


def _names(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize(("old", "new"), [("old", "new"), (b"\x00old", b"\x00new")])
def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path, monkeypatch, old, new):
    path = tmp_path / "file.json"
    write_atomically(path, old)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            write_atomically(path, new)
    assert path.read_bytes() == (old.encode() if isinstance(old, str) else old)
    assert _names(tmp_path) == ["file.json"]
    write_atomically(path, new)
    assert path.read_bytes() == (new.encode() if isinstance(new, str) else new)


def test_the_folders_above_are_made_and_text_is_utf8_without_other_line_ends(tmp_path):
    write_atomically(tmp_path / "a" / "b" / "file", "ä\n")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"\xc3\xa4\n"


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_new_file_has_the_mode_that_the_users_mask_gives(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_name_as_long_as_the_file_system_allows_can_be_written(tmp_path):
    write_atomically(tmp_path / ("ä" * 127), "x")
    assert (tmp_path / ("ä" * 127)).read_text() == "x"


def test_a_folder_appears_whole_or_not_at_all(tmp_path):

    def make(cut):
        with placed(tmp_path / "result") as beside:
            beside.mkdir()
            (beside / "first").write_text("1")
            assert not (tmp_path / "result").exists()
            if cut:
                raise RuntimeError("cut")

    with pytest.raises(RuntimeError):
        make(cut=True)
    assert _names(tmp_path) == []
    make(cut=False)
    assert _names(tmp_path) == ["result"]


def test_a_folder_replaces_another_or_the_other_comes_back(tmp_path, monkeypatch):
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
        (folder / folder.name).write_text("x")
    real, calls = os.replace, []

    def fails_second(*paths):
        calls.append(paths)
        if len(calls) == 2:
            raise OSError("in use")
        real(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fails_second)
        with pytest.raises(OSError, match="in use"):
            replace(new, old)
    assert _names(old) == ["old"]
    replace(new, old)
    assert _names(old) == ["new"]
    assert _names(tmp_path) == ["old"]


def test_what_a_killed_writer_leaves_is_found_and_removed_by_the_next_that_is_alone(tmp_path):
    killed = (
        "import os, pathlib, effbook.files as f\n"
        f"with f.placed(pathlib.Path({str(tmp_path / 'file')!r})) as beside:\n"
        "    beside.write_text('half'); os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", killed]).returncode == -9
    (left,) = tmp_path.iterdir()
    other = tmp_path / left.name.replace("file", "file.else")
    other.write_text("of another")
    assert leftovers(tmp_path / "file") == [left]
    with placed(tmp_path / "file") as beside:
        beside.write_text("whole")
    assert left.exists()  # it could be a living writer's
    with placed(tmp_path / "file", alone=True) as beside:
        beside.write_text("whole")
    assert _names(tmp_path) == [other.name, "file"]
    assert leftovers(tmp_path / "no folder" / "file") == []


def test_sizes_are_those_of_all_files(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"123")
    (tmp_path / "a" / "other").write_bytes(b"12")
    assert [size_bytes(tmp_path / name) for name in ("a", "a/other", "none")] == [5, 2, 0]
