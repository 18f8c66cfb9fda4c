"""effbook cache, and effbook cache prune."""

import json

import pytest

from effbook import experiments
from effbook.runs import cache
from effbook.runs.context import Context


@pytest.fixture
def place(door, tmp_path, monkeypatch):
    monkeypatch.setenv("EFFBOOK_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(experiments, "load", lambda: None)
    context = Context("mini", tmp_path / "run")
    return context.cached("scene", {"name": "a"}, door(), lambda folder: (folder / "x").write_bytes(b"1" * 2048))


def test_the_cache_is_listed_and_pruned(place, effbook, tmp_path):
    (tmp_path / "data" / "compgs-trained" / "scene").mkdir(parents=True)
    status, out, _ = effbook("cache")
    assert status == 0
    for word in ("current", "KiB", "door", "stale", "earlier", "2 things"):
        assert word in out
    status, out, _ = effbook("cache", "prune")
    assert status == 0
    assert "1 things removed, 0 B freed" in out
    assert not (tmp_path / "data" / "compgs-trained").exists()
    told = json.loads((place / cache.STAMP).read_text())
    (place / cache.STAMP).write_text(json.dumps(told | {"fingerprint": "0" * 16}))
    status, out, _ = effbook("cache", "prune")
    assert "KiB  stale: scene-" in out
    assert not place.exists()
    assert effbook("cache")[1] == "0 things, 0 B.\n"


def test_all_takes_good_results_too(place, effbook):
    assert "0 things removed" in effbook("cache", "prune")[1]
    assert "1 things removed" in effbook("cache", "prune", "--all")[1]
    assert not place.exists()
