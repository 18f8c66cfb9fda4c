"""What is remembered of files spares work and changes nothing: not where files change, nor where it is damaged."""

import os

import pytest

import effbook
from effbook.runs import code, remembered
from effbook.runs.code import fingerprint, here

_MODULE = ("effbook.one",)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of one module, and a cache that is empty."""
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "one.py").write_text("x = 1\n")
    monkeypatch.setattr(effbook, "__file__", str(folder / "__init__.py"))
    monkeypatch.setenv("EFFBOOK_WORK", str(tmp_path / "work"))
    code._here.cache_clear()
    yield folder
    code._here.cache_clear()


def _anew() -> str:
    """The fingerprint, as the next process has it."""
    code._here.cache_clear()
    return fingerprint(_MODULE)


def test_the_next_process_takes_a_fingerprint_without_reading_the_code(package, monkeypatch):
    first = fingerprint(_MODULE)
    monkeypatch.setattr(code, "parsed", lambda *_: pytest.fail("it read the code"))
    assert _anew() == first


def test_a_changed_file_of_the_same_size_and_time_is_noticed(package):
    first, file = fingerprint(_MODULE), package / "one.py"
    stat = file.stat()
    file.write_text("x = 2\n")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert _anew() != first


@pytest.mark.parametrize("damage", [None, "", "{", "[]", '{"state": 1}', '{"state": "", "content": {}}', "\udcff"])
def test_without_it_all_is_worked_out(package, tmp_path, damage):
    first = fingerprint(_MODULE)
    (file,) = (tmp_path / "work").iterdir()
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage.encode(errors="surrogateescape"))
    assert _anew() == first
    assert remembered.recall("fingerprints", here().state) == {"cpu effbook.one": first}  # it is mended


def test_a_cache_that_cannot_be_written_is_done_without(package, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EFFBOOK_WORK", str(tmp_path / "file" / "work"))
    assert fingerprint(_MODULE) == _anew()


def test_what_json_would_change_is_not_kept(package):
    for content in ({"a": {1: "x"}}, {"a": (1,)}, {"a": float("nan")}, {"a": object()}):
        remembered.remember("some", "state", content)
        assert remembered.recall("some", "state") == {}
    remembered.remember("some", "state", {"a": [1, 1.5, None, True]})
    assert remembered.recall("some", "state") == {"a": [1, 1.5, None, True]}
    assert remembered.recall("some", "another state") == {}
