"""What killed runs leave: cleared by a later run of the same recipe, and by pruning; what works or is good stays."""

import json
import os
import subprocess
import time

import pytest
from filelock import FileLock
from tiny_recipe import Tiny

from effbook.runs import cache, locks, machine, records
from effbook.runs.context import Context
from effbook.runs.execute import execute, work_folder
from effbook.runs.prune import listed, prune

TOKEN = "0123456789abcdef"


@pytest.fixture
def look(folders, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    return lambda: listed(data=data, earlier=[data / "old-results"])


def _kept(tmp_path, name, of=None):
    context = Context("smoke", tmp_path / "run")
    return context.cached("scene", {"name": name}, of or Tiny(), lambda folder: (folder / "x").write_bytes(b"123"))


def _restamp(place, **changes):
    told = json.loads((place / cache.STAMP).read_text())
    (place / cache.STAMP).write_text(json.dumps(told | changes))


def _states(items):
    return {item.path.name: item.state for item in items}


def test_kept_results_are_listed_with_their_code_and_only_the_stale_ones_pruned(look, tmp_path, monkeypatch):
    places = [_kept(tmp_path, name) for name in "abcd"]
    _restamp(places[1], fingerprint="0" * 16)
    _restamp(places[2], recipe="tiny-gone")
    _restamp(places[3], device="another GPU")
    found = look()
    states = [_states(found)[place.name] for place in places]
    assert states == ["current", "stale", "stale", "elsewhere"]
    one = next(item for item in found if item.path == places[0])
    assert one.recipe == "tiny"
    assert one.size_bytes > 3
    removed, left = prune(found)
    assert {item.path for item, _ in removed} == set(places[1:3])
    assert all(size > 3 for _, size in removed)
    assert left == []
    monkeypatch.setattr(machine, "packages", lambda: {"torch": "0.1"})
    assert _states(look())[places[0].name] == "stale"
    monkeypatch.undo()


def test_pruning_everything_takes_good_results_too_and_never_records(look, folders, tmp_path):
    execute(Tiny(), profile="smoke", quiet=True)
    _kept(tmp_path, "a")
    prune(look(), everything=True)
    assert look() == []
    assert records.find(Tiny(), "smoke").artifact("picture").exists()


def _litter(folders, tmp_path, recipe):
    """All that runs which were killed in one moment or another leave, of this version and of earlier ones."""
    folder = folders[0] / "smoke" / "nola"
    path = records.path_of(recipe, "smoke")
    (path.with_suffix("")).mkdir(parents=True, exist_ok=True)
    (folder / ".locks").mkdir(exist_ok=True)
    own = [
        path.with_name(f".{path.name}.{TOKEN}.tmp"),
        path.with_suffix("") / "film-01234567.txt",
        path.with_suffix("") / f".film-01234567.txt.{TOKEN}.tmp",
    ]
    others = [
        folder / ".locks" / "..gitignore.k2_j3h4.tmp",
        folders[0] / "code" / f".abc.json.{TOKEN}.tmp",
        folders[1] / "results" / f".scene-abc.{TOKEN}.tmp",
        tmp_path / "data" / ".incoming-digits.abc",
        tmp_path / "data" / f".digits.{TOKEN}.tmp",
        tmp_path / "data" / "still-lifes" / f".metals.{TOKEN}.tmp",
        tmp_path / "data" / "old-results",
    ]
    old = time.time() - 7200
    for file in [*own, *others]:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("half")
        os.utime(file, (old, old))
    return own, others


@pytest.mark.parametrize("recorded", [False, True])
def test_a_later_run_of_the_same_recipe_clears_what_a_killed_one_left(folders, tmp_path, recorded):
    if recorded:
        execute(Tiny(), profile="smoke", quiet=True)
    own, _ = _litter(folders, tmp_path, Tiny())
    execute(Tiny(), profile="smoke", quiet=True, fresh=recorded)
    assert [file for file in own if file.exists()] == []
    assert records.find(Tiny(), "smoke").artifact("picture").exists()


def test_pruning_clears_all_that_killed_processes_left(look, folders, tmp_path, monkeypatch):
    execute(Tiny(seed=1), profile="smoke", quiet=True)
    monkeypatch.setenv("TINY_FAIL", "1")
    with pytest.raises(RuntimeError):
        execute(Tiny(seed=2), profile="smoke", quiet=True)
    dead = subprocess.Popen(["true"])
    dead.wait()
    (folders[1] / f"recheck-{dead.pid}").mkdir()
    (folders[1] / "of-someone-else").mkdir()
    own, others = _litter(folders, tmp_path, Tiny())
    of_a_record, _ = _litter(folders, tmp_path, Tiny(seed=1))
    prune(look())
    assert [file for file in [*own, *others, *of_a_record] if file.exists()] == []
    assert not work_folder(Tiny(seed=2), "smoke").exists()
    assert not (folders[1] / f"recheck-{dead.pid}").exists()
    assert (folders[1] / "of-someone-else").exists()
    assert records.find(Tiny(seed=1), "smoke").artifact("picture").exists()
    assert look() == []


def test_what_a_process_works_on_is_left(look, folders, tmp_path, monkeypatch):
    monkeypatch.setenv("TINY_FAIL", "1")
    with pytest.raises(RuntimeError):
        execute(Tiny(), profile="smoke", quiet=True)
    place = _kept(tmp_path, "a")
    found = look()
    with (
        FileLock(locks.lock_path(work_folder(Tiny(), "smoke"))),
        FileLock(locks.lock_path(place)),
    ):
        removed, left = prune(found, everything=True)
        assert removed == []
        assert {item.path for item in left} == {work_folder(Tiny(), "smoke"), place}
        assert "in use" in _states(look()).values()
    (place.parent / f".scene-new.{TOKEN}.tmp").mkdir()  # a moment ago
    (folders[0] / "code").mkdir(exist_ok=True)
    (folders[0] / "code" / f".new.json.{TOKEN}.tmp").touch()
    assert _states(look())[f".new.json.{TOKEN}.tmp"] == "in use"  # no lock tells: it may be alive


def test_an_artifact_beside_a_damaged_record_is_not_touched(look, folders):
    execute(Tiny(), profile="smoke", quiet=True)
    records.path_of(Tiny(), "smoke").write_text("{half")
    assert look() == []
