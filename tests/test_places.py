"""The folders that the environment names: absolute, or refused in one sentence."""

import errno
from pathlib import Path

import pytest

from effbook.errors import EffbookError, system_error
from effbook.places import expanded, folder_named, ready, room

LONG = "/".join(["a" * 200] * 30)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder to be in, and the home: with a file, a folder and a link that leads nowhere."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "there").mkdir()
    (tmp_path / "lost").symlink_to(tmp_path / "gone")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ("there", "there"),
        ("~/there", "there"),
        ("no/such/folder", "no/such/folder"),
        ("./there/../there", "there/../there"),
        ("", "default"),
        ("  ", "default"),
    ],
)
def test_a_folder_is_absolute_whether_it_is_there_or_not(here, monkeypatch, given, folder):
    monkeypatch.setenv("EFFBOOK_TEST", given)
    assert folder_named("EFFBOOK_TEST", here / "default") == here / folder


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("file", "file is a file"),
        ("file/below", "file is a file"),
        ("lost", "lost is a link that leads nowhere"),
        ("/dev/null", "/dev/null is a file"),
        ("~nobody-of-that-name/x", "a home that is not there"),
        (LONG, "file name too long"),
    ],
)
def test_what_can_be_no_folder_is_refused_by_the_variable_s_name(here, monkeypatch, given, why):
    monkeypatch.setenv("EFFBOOK_TEST", given)
    with pytest.raises(EffbookError) as caught:
        folder_named("EFFBOOK_TEST", here / "default")
    assert str(caught.value).startswith("EFFBOOK_TEST names ")
    assert why in str(caught.value)
    assert "; " in str(caught.value)


def test_a_relative_path_is_taken_from_the_folder_that_one_is_in(here):
    assert expanded("EFFBOOK_TEST", "x/y") == here / "x" / "y"


def test_a_folder_to_write_to_is_made_with_those_above_it(here):
    assert ready(here / "a" / "b") == here / "a" / "b"
    assert list((here / "a" / "b").iterdir()) == []


@pytest.mark.parametrize(
    ("folder", "words"),
    [("file", "is a file where a folder is needed"), ("file/x", "a file is in its way"), (LONG, "is longer than")],
)
def test_a_folder_that_cannot_be_made_is_told_before_any_work(here, folder, words):
    with pytest.raises(EffbookError, match=words):
        ready(here / folder)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_where_the_system_allows_no_folder_it_is_told():
    with pytest.raises(EffbookError, match="/proc/effbook is not there, or cannot be made"):
        ready(Path("/proc/effbook"))


@pytest.mark.parametrize(
    ("code", "cause", "remedy"),
    [
        (errno.ENOSPC, "the disk that /x/y is to be written to is full", "free some space"),
        (errno.EDQUOT, "the disk that /x/y is to be written to is full", "free some space"),
        (errno.EACCES, "/x/y cannot be read or written (permission denied)", "give this user the right"),
        (errno.EROFS, "/x/y cannot be read or written (read-only)", "name another place"),
        (errno.ENOENT, "/x/y is not there", "make the folder above it"),
        (errno.EISDIR, "/x/y is a folder where a file is needed", "move it away"),
        (errno.EMFILE, "too many files are open", "ulimit -n"),
        (errno.ENOMEM, "the system has no memory left", "fewer --jobs"),
        (errno.EIO, "/x/y cannot be used (input/output error)", "check the disk"),
    ],
)
def test_what_the_system_refuses_is_a_sentence_with_file_and_remedy(code, cause, remedy):
    told = system_error(OSError(code, "Input/output error", "/x/y"))
    assert told.cause == cause or told.cause.startswith(cause)
    assert remedy in told.remedy


def test_an_error_without_a_file_and_one_without_a_number_are_sentences_too():
    assert "the disk that is written to is full" in str(system_error(OSError(errno.ENOSPC, "No space left")))
    assert "(what nobody foresaw)" in str(system_error(OSError("What nobody foresaw")))


def test_the_room_on_a_disk_is_told_without_making_a_folder(here):
    assert room(here / "no" / "such") > 0
    assert not (here / "no").exists()


def test_no_room_is_told_where_nothing_can_be_written(here, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(EffbookError, match=r"no cannot be written to; give this user the right"):
        room(here / "no")
