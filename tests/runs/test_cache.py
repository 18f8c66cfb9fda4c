"""Kept results: made once, taken while code, data, packages and device are the same, and never half."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import pytest
from tiny_recipe import Tiny

from effbook.errors import EffbookError
from effbook.runs import cache, machine, records
from effbook.runs.batch import execute_all
from effbook.runs.context import Context
from effbook.runs.execute import execute
from effbook.runs.recipe import Recipe, Result, register_recipe

PARTS = {"steps": 3, "scene": "metals"}


@pytest.fixture
def context(folders, tmp_path):
    return Context("smoke", tmp_path / "run")


def _filling(text="made", log=None):
    def make(folder):
        (folder / "scene.txt").write_text(text)
        if log is not None:
            log.append(text)

    return make


def _restamped(place, **changes):
    told = json.loads((place / cache.STAMP).read_text())
    (place / cache.STAMP).write_text(json.dumps(told | changes))


def test_a_result_is_made_once_and_taken_with_where_it_came_from(context, folders, tmp_path):
    log = []
    assert context.kept("scene", PARTS, Tiny()) is None
    first = context.cached("scene", PARTS, Tiny(), _filling(log=log))
    assert first.parent == folders[1] / "results"
    assert context.cached("scene", dict(reversed(PARTS.items())), Tiny(seed=5), _filling(log=log)) == first
    assert context.taken == []  # made in this very run
    later = Context("smoke", tmp_path / "later")
    assert later.kept("scene", PARTS, Tiny()) == later.cached("scene", PARTS, Tiny(), _filling(log=log)) == first
    assert (first / "scene.txt").read_text() == "made"
    assert log == ["made"]
    (taken,) = later.taken
    assert f"{taken.kind}-{taken.key}" == first.name
    stamp = cache.stamp_of(first)
    assert (taken.fingerprint, taken.commit, taken.created) == (stamp.fingerprint, stamp.commit, stamp.created)
    assert stamp.recipe == "tiny"
    assert stamp.packages["torch"]


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: patch.setattr(machine, "device", lambda: "another GPU"),
        lambda patch: patch.setattr(machine, "packages", lambda: {"torch": "0.1"}),
        lambda patch: patch.setitem(PARTS, "steps", 4),
    ],
)
def test_other_parts_another_device_and_other_packages_have_a_result_of_their_own(context, monkeypatch, change):
    first = context.cached("scene", PARTS, Tiny(), _filling())
    change(monkeypatch)
    assert context.kept("scene", PARTS, Tiny()) is None
    assert context.cached("scene", PARTS, Tiny(), _filling("other")) != first
    assert (first / "scene.txt").read_text() == "made"


def test_a_result_of_other_code_is_made_anew_in_its_place(context):
    first = context.cached("scene", PARTS, Tiny(), _filling("old"))
    (first / "more.txt").write_text("of the old one")
    _restamped(first, fingerprint="0" * 16)
    assert context.kept("scene", PARTS, Tiny()) is None
    assert context.cached("scene", PARTS, Tiny(), _filling("new")) == first
    assert sorted(path.name for path in first.iterdir()) == [cache.STAMP, "scene.txt"]
    assert (first / "scene.txt").read_text() == "new"


@pytest.mark.parametrize("text", ["", "{", "{}", '{"kind": 1}'])
def test_a_result_whose_stamp_is_damaged_is_made_anew(context, text):
    first = context.cached("scene", PARTS, Tiny(), _filling("old"))
    (first / cache.STAMP).write_text(text)
    assert (context.cached("scene", PARTS, Tiny(), _filling("new")) / "scene.txt").read_text() == "new"


def test_what_is_older_than_a_fresh_run_is_not_taken_and_what_it_made_is(context, tmp_path):
    place = context.cached("scene", PARTS, Tiny(), _filling("old"))
    time.sleep(0.002)  # times are kept to the millisecond
    since = datetime.now(UTC)
    fresh = Context("smoke", tmp_path / "fresh", fresh_since=since)
    assert fresh.kept("scene", PARTS, Tiny()) is None
    fresh.cached("scene", PARTS, Tiny(), _filling("new"))
    other = Context("smoke", tmp_path / "other", fresh_since=since)
    assert other.cached("scene", PARTS, Tiny(), _filling("again")) == place
    assert (place / "scene.txt").read_text() == "new"


def test_a_making_that_fails_leaves_the_old_result_and_nothing_else(context, folders):
    place = context.cached("scene", PARTS, Tiny(), _filling("old"))

    def fail(folder):
        (folder / "half").write_text("half")
        raise RuntimeError("cut")

    with pytest.raises(RuntimeError):
        context.keep("scene", PARTS, Tiny(), fail)
    assert (place / "scene.txt").read_text() == "old"
    assert [path.name for path in place.parent.iterdir() if path.name != ".locks"] == [place.name]


def test_a_result_names_what_its_making_took(context, tmp_path):
    context.cached("start", PARTS, Tiny(), _filling())
    later = Context("smoke", tmp_path / "later")
    place = later.cached("scene", PARTS, Tiny(), lambda folder: later.cached("start", PARTS, Tiny(), _filling()))
    assert [one.kind for one in cache.stamp_of(place).taken] == ["start"]
    assert [one.kind for one in later.taken] == ["start"]
    last = Context("smoke", tmp_path / "last")
    last.kept("scene", PARTS, Tiny())
    assert [one.kind for one in last.taken] == ["scene", "start"]


def test_what_was_taken_before_a_kill_is_known_after_it(context, tmp_path):
    context.cached("scene", PARTS, Tiny(), _filling())
    first = Context("smoke", tmp_path / "other")
    first.kept("scene", PARTS, Tiny())
    first.checkpoint({}, 1)
    second = Context("smoke", tmp_path / "other")
    second.resume()
    assert [one.kind for one in second.taken] == ["scene"]


def test_a_kind_is_a_plain_name(context):
    with pytest.raises(ValueError, match="is named such as"):
        context.kept("../scene", PARTS, Tiny())


_PROCESS = """
import os, sys, time
from pathlib import Path
from tiny_recipe import Tiny
from effbook.runs.context import Context

def make(folder):
    with open(sys.argv[1], "a") as log:
        log.write("made\\n")
    (folder / "first").write_text("1")
    time.sleep(float(sys.argv[2]))
    (folder / "second").write_text("2")

place = Context("smoke", Path(sys.argv[1] + f".{os.getpid()}")).cached("scene", {"steps": 3}, Tiny(), make)
print(sorted(path.name for path in place.iterdir()))
"""


def _process(tmp_path, seconds):
    command = [sys.executable, "-c", _PROCESS, str(tmp_path / "log"), str(seconds)]
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parents[1])])}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.usefixtures("folders")
def test_of_two_processes_one_makes_a_result_and_the_other_waits(tmp_path):
    both = [_process(tmp_path, 0.5) for _ in range(2)]
    assert [process.communicate()[0] for process in both] == ["['.result.json', 'first', 'second']\n"] * 2
    assert (tmp_path / "log").read_text() == "made\n"


@pytest.mark.slow
def test_a_process_killed_while_making_leaves_no_half_result_and_the_next_tidies_up(folders, tmp_path):
    process = _process(tmp_path, 60)
    while not list((folders[1] / "results").glob(".scene-*/first")):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert not list((folders[1] / "results").glob("scene-*"))
    assert "second" in _process(tmp_path, 0).communicate()[0]
    assert [path.name[:6] for path in (folders[1] / "results").iterdir() if path.name != ".locks"] == ["scene-"]


# ------------------------------------------------------------------------------------------- in runs and their records


@register_recipe
@dataclass(frozen=True, kw_only=True)
class Sharing(Recipe):
    """Takes a training that does not depend on `shown`, and another run's record."""

    system: ClassVar[str] = "nola"
    name: ClassVar[str] = "tiny-sharing"
    shown: int = 0

    def run(self, context: Context) -> Result:
        def train(folder):
            with open(os.environ["SHARING_LOG"], "a") as log:
                log.write("trained\n")
            (folder / "value").write_text(str(self.seed + 1))

        place = context.cached("training", {"seed": self.seed}, self, train)
        loss = context.record_of(Tiny(seed=self.seed, steps=2)).metrics["loss"]
        if os.environ.get("SHARING_FAIL"):
            raise RuntimeError("told to fail")
        return Result({"value": int((place / "value").read_text()) * 10 + self.shown, "loss": loss})


@pytest.fixture
def log(folders, tmp_path, monkeypatch):
    path = tmp_path / "sharing-log"
    path.touch()
    monkeypatch.setenv("SHARING_LOG", str(path))
    monkeypatch.setenv("TINY_LOG", str(path))

    def counted():
        words = path.read_text().split()
        path.write_text("")
        return words.count("trained"), words.count("run")

    return counted


def _fresh(recipe):
    time.sleep(0.002)
    return execute(recipe, profile="smoke", fresh=True, quiet=True)


def test_a_record_names_what_was_taken_and_not_what_was_made(log):
    first = execute(Sharing(), profile="smoke", quiet=True)
    second = execute(Sharing(shown=1), profile="smoke", quiet=True)
    assert [one.kind for one in first.provenance.taken] == ["record"]
    assert [one.kind for one in second.provenance.taken] == ["training", "record"]
    assert second.provenance.taken[1].key == f"tiny-{Tiny(steps=2).key}"
    assert log() == (1, 1)
    plain = execute(Tiny(), profile="smoke", quiet=True)
    assert "taken" not in json.loads(records.path_of(Tiny(), "smoke").read_text())["provenance"]
    assert plain.provenance.taken == ()


def test_a_fresh_run_trains_again_and_runs_what_it_depends_on_again(log):
    execute(Sharing(), profile="smoke", quiet=True)
    assert log() == (1, 1)
    again = _fresh(Sharing())
    assert log() == (1, 1)
    assert [one.kind for one in again.provenance.taken] == ["record"]
    assert execute(Sharing(shown=1), profile="smoke", quiet=True).metrics["value"] == 11
    assert log() == (0, 0)


def test_fresh_runs_of_one_command_share_what_one_of_them_trains(log):
    pairs = [(recipe, "smoke") for recipe in (Sharing(), Sharing(shown=1), Tiny(steps=2))]
    old = execute_all(pairs, quiet=True)
    assert log() == (1, 1)
    time.sleep(0.002)
    new = execute_all(pairs, fresh=True, quiet=True)
    assert log() == (1, 1)
    assert [record.metrics for record in new] == [record.metrics for record in old]
    assert all(a.provenance.created < b.provenance.created for a, b in zip(old, new, strict=True))


def test_a_fresh_run_that_was_cut_goes_on_with_what_it_has_made(log, monkeypatch):
    execute(Sharing(), profile="smoke", quiet=True)
    log()
    monkeypatch.setenv("SHARING_FAIL", "1")
    with pytest.raises(RuntimeError):
        _fresh(Sharing())
    assert log() == (1, 1)
    monkeypatch.delenv("SHARING_FAIL")
    _fresh(Sharing())
    assert log() == (0, 0)
    _fresh(Sharing())
    assert log() == (1, 1)


def test_a_stale_record_that_a_run_depends_on_is_made_anew(log):
    execute(Tiny(steps=2), profile="smoke", quiet=True)
    path = records.path_of(Tiny(steps=2), "smoke")
    content = json.loads(path.read_text())
    content["provenance"]["fingerprint"] = "0" * 16
    path.write_text(json.dumps(content))
    log()
    execute(Sharing(), profile="smoke", quiet=True)
    assert log() == (1, 1)
    assert not records.is_stale(records.read(path))


def test_what_is_taken_gives_the_numbers_that_making_it_gives(log):
    made = execute(Sharing(shown=3, seed=2), profile="smoke", quiet=True)
    records.path_of(Sharing(shown=3, seed=2), "smoke").unlink()
    taken = execute(Sharing(shown=3, seed=2), profile="smoke", quiet=True)
    assert (made.metrics, made.series) == (taken.metrics, taken.series)


def test_a_run_cannot_give_a_result_the_name_of_the_stamp(context):
    with pytest.raises(EffbookError, match="a file named"):
        context.cached("scene", PARTS, Tiny(), lambda folder: (folder / cache.STAMP).write_text(""))


def test_a_work_folder_of_other_packages_is_not_gone_on_with(folders, monkeypatch, capsys):
    monkeypatch.setenv("TINY_FAIL", "1")
    with pytest.raises(RuntimeError):
        execute(Tiny(), profile="smoke")
    monkeypatch.delenv("TINY_FAIL")
    monkeypatch.setattr(machine, "packages", lambda: {"torch": "0.1"})
    execute(Tiny(), profile="smoke")
    assert "resuming" not in capsys.readouterr().err
