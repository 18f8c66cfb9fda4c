"""A recheck tells code that gives the same numbers from code that does not, end to end and part by part."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import effbook
from effbook.errors import EffbookError
from effbook.runs import attest, machine, recheck, records
from effbook.runs.attest import Attestation, kind_of
from effbook.runs.recheck import differences

_ROOT = Path(effbook.__file__).parents[1]
_RUN = {"metrics": {"accuracy": 50.0, "step_ms": 3.0, "bleu": None}, "series": {"loss": [1.0, 0.5]}}


def _with(what, name, value):
    return {**_RUN, what: {**_RUN[what], name: value}}


@pytest.fixture
def house(tmp_path):
    """A git repository of its own with today's code and manifests, and a command line in it."""
    home = tmp_path / "house"
    left_out = shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc")
    for folder in ("effbook", "data_manifests"):
        shutil.copytree(_ROOT / folder, home / folder, ignore=left_out)
    shutil.copy(_ROOT / "pyproject.toml", home)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("EFFBOOK_", "GIT_"))},
        "PYTHONPATH": str(home),
        "EFFBOOK_WORK": str(tmp_path / "work"),
        "EFFBOOK_DATA": str(tmp_path / "data"),
    }

    def git(*arguments):
        who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
        return subprocess.run(["git", *who, *arguments], cwd=home, check=True, capture_output=True, text=True).stdout

    def python(program, *arguments):
        command = [sys.executable, "-c", program, *arguments]
        return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)

    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "The code that makes the record")
    return home, git, python


def _edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


_RECORD = """
from effbook import exhibits
from effbook.runs.execute import execute

recipe = next(run for run in exhibits.recipes_of("nola-vision", "smoke") if run.method == "linear")
execute(recipe, profile="smoke", quiet=True)
"""
_RECHECK = """
import effbook.experiments.nola
from effbook.runs import recheck, records

(record,) = records.all_records("smoke")
groups = recheck.stale_groups([record])
if not groups:
    print("nothing is stale")
attested, unchecked = recheck.recheck(groups)
print(records.standing(record), unchecked, recheck.changes(record))
"""


@pytest.mark.slow
def test_numbers_that_change_are_refused_and_a_renaming_and_a_move_are_attested(house):
    home, git, python = house
    vision, training = home / "effbook/experiments/nola/vision.py", home / "effbook/experiments/shared/training.py"
    assert (ran := python(_RECORD)).returncode == 0, ran.stderr
    (path,) = (home / "book/records/smoke/nola").glob("nola-vision-*.json")
    kept = path.read_bytes()
    assert python(_RECHECK).stdout == "nothing is stale\nmeasured [] {}\n"

    _edit(vision, "label_smoothing=0.1", "label_smoothing=0.0")  # what trains changes
    refused = python(_RECHECK).stdout
    assert "0 of 1 kinds agree" in refused
    assert "differ in train_loss by" in refused
    assert refused.endswith("stale [] {'effbook.experiments.nola.vision': 'changed'}\n")
    git("checkout", "-q", "effbook")

    _edit(vision, '"accuracy": accuracy(', '"accuracy": 0.5 * accuracy(')  # what is measured changes
    refused = python(_RECHECK).stdout
    assert "differ in accuracy by" in refused
    assert refused.endswith("stale [] {'effbook.experiments.nola.vision': 'changed'}\n")
    git("checkout", "-q", "effbook")

    moved = home / "effbook/experiments/nola/loop.py"  # the same in other words and in another place
    training.rename(moved)
    _edit(moved, "def trainable(", "def _count(")
    moved.write_text(moved.read_text() + "\n\ntrainable = _count\n")
    for file in (home / "effbook").rglob("*.py"):
        text = file.read_text().replace("effbook.experiments.shared.training", "effbook.experiments.nola.loop")
        file.write_text(text)
    agreed = python(_RECHECK).stdout
    assert "1 of 1 kinds agree" in agreed
    differing = {"effbook.experiments.nola.loop": "new", "effbook.experiments.shared.training": "gone"}
    assert agreed.endswith(f"rechecked [] {differing}\n")
    (outcome,) = attest.read(home / "book/records")
    assert (outcome.agrees, outcome.largest, outcome.commit) == (True, 0.0, git("rev-parse", "HEAD").strip())
    assert outcome.compared > 2
    assert path.read_bytes() == kept
    assert "worktree" not in git("worktree", "list", "--porcelain").replace(f"worktree {home}\n", "", 1)


def test_a_run_agrees_with_itself_whatever_its_times_are():
    assert differences(_RUN, _with("metrics", "step_ms", 9.0), varying=("step_ms",)) == recheck.Differences(0.0, (), 3)


@pytest.mark.parametrize(
    ("other", "largest", "names"),
    [
        (_with("metrics", "accuracy", 50.00000000000001), 7.105427357601002e-15, ("accuracy",)),
        (_with("metrics", "bleu", 0.0), None, ("bleu",)),
        (_with("metrics", "more", 1.0), None, ("more",)),
        (_with("series", "loss", [1.0, 0.25]), 0.25, ("loss",)),
        (_with("series", "loss", [1.0]), None, ("loss",)),
        ({"error": "ValueError: it broke"}, None, ("ValueError: it broke",)),
    ],
)
def test_any_other_number_is_told_with_its_name_and_how_far_apart_it_is(other, largest, names):
    found = differences(_RUN, other, varying=("step_ms",))
    assert (found.largest, found.differing) == (largest, names)


def test_on_a_gpu_a_millionth_is_let_pass_and_more_is_not():
    near, far = _with("metrics", "accuracy", 50.00004), _with("metrics", "accuracy", 50.0004)
    assert differences(_RUN, near, varying=("step_ms",), tolerance=1e-6).differing == ()
    assert differences(_RUN, far, varying=("step_ms",), tolerance=1e-6).differing == ("accuracy",)


def test_a_kind_is_told_by_words_and_switches_and_by_which_numbers_are_given():
    one = {"method": "nola", "rank": 4, "bits": None, "rates": [0.1, 0.2], "shared": True, "seed": 0}
    assert kind_of(one) == kind_of(one | {"rank": 8, "seed": 2, "rates": [0.3, 0.2]})
    for other in ({"method": "lora"}, {"bits": 4}, {"rates": [0.1]}, {"shared": False}):
        assert kind_of(one) != kind_of(one | other)


def _outcome(**given):
    known = dict(
        recipe="tiny", kind=kind_of({"rate": 0.1}), old="a" * 16, new="b" * 16, commit="c", agrees=True, largest=0.0,
        compared=3, probe={}, keys=("k",), tolerance=0.0, here=None, dirty=None, device="d", packages={}, created="now",
    )  # fmt: skip
    return Attestation(**known | given)


def test_an_attestation_stands_for_its_kind_and_its_two_fingerprints_only(tmp_path):
    attest.write(tmp_path, [_outcome(), _outcome(kind=kind_of({"rate": None}), agrees=False, largest=0.5)])
    known = ("tiny", {"rate": 0.3}, "a" * 16, "b" * 16)
    assert attest.find(tmp_path, *known).agrees
    assert not attest.find(tmp_path, "tiny", {"rate": None}, "a" * 16, "b" * 16).agrees
    for i, other in enumerate(("giant", {"rate": "high"}, "c" * 16, "c" * 16)):
        assert attest.find(tmp_path, *known[:i], other, *known[i + 1 :]) is None


def test_a_later_outcome_replaces_what_was_said_of_the_same_records(tmp_path):
    attest.write(tmp_path, [_outcome()])
    attest.write(tmp_path, [_outcome(new="d" * 16, agrees=False, largest=1.0)])
    (left,) = attest.read(tmp_path)
    assert (left.new, left.agrees) == ("d" * 16, False)


def test_a_line_that_cannot_be_read_is_told_with_its_number(tmp_path):
    attest.write(tmp_path, [_outcome()])
    with (tmp_path / attest.FILE).open("a") as file:
        file.write("{}\n")
    with pytest.raises(EffbookError, match=r"line 2 of .*rechecked\.jsonl is not valid"):
        attest.read(tmp_path)


def test_without_a_checkout_there_is_no_older_code(monkeypatch):
    monkeypatch.setattr(machine, "repository", lambda: None)
    with pytest.raises(EffbookError, match="without its checkout"):
        recheck.recheck([])


def test_records_whose_code_was_never_listed_say_so(folders):
    from tiny_recipe import Tiny

    from effbook.runs.execute import execute

    record = execute(Tiny(), profile="smoke", quiet=True)
    assert recheck.changes(record) == {}
    records.code_path(record.provenance.fingerprint).unlink()
    with pytest.raises(EffbookError, match="are not listed"):
        recheck.changes(record)
