"""The door: one sentence for every failure, and an exit status that tells the truth."""

import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import pytest

from effbook import cli, data, exhibits, experiments
from effbook.errors import EffbookError
from effbook.runs import bench as ledger
from effbook.runs import records
from effbook.runs.recipe import Recipe, Result, register_recipe


@register_recipe
@dataclass(frozen=True, kw_only=True)
class Door(Recipe):
    """A run that gives its seed, or what it was told to do."""

    system: ClassVar[str] = "nola"
    name: ClassVar[str] = "door"
    act: ClassVar[BaseException | None] = None

    def run(self, context):
        if Door.act is not None:
            raise Door.act
        return Result({"seed": self.seed})


@pytest.fixture(autouse=True)
def _house(tmp_path, monkeypatch):
    """One exhibit, tab-0.1, with two runs; records of its own."""
    monkeypatch.setenv("EFFBOOK_RECORDS", str(tmp_path / "records"))
    monkeypatch.setenv("EFFBOOK_WORK", str(tmp_path / "work"))

    def recipes_of(what, profile):
        if what not in ("tab-0.1", "nola"):
            raise EffbookError(f"{what!r} is no exhibit", "did you mean tab-0.1")
        return [Door(seed=0), Door(seed=1)]

    monkeypatch.setattr(Door, "act", None)
    monkeypatch.setattr(exhibits, "recipes_of", recipes_of)
    monkeypatch.setattr(exhibits, "register", lambda: {"tab-0.1": None})
    monkeypatch.setattr(exhibits, "show_terminal", lambda name, profile: print(f"table {name} {profile}"))


@pytest.fixture
def effbook(capsys):
    """effbook("run", ...) -> (exit status, standard output, standard error)."""

    def call(*arguments):
        with pytest.raises(SystemExit) as caught:
            cli.main(list(arguments))
        return (caught.value.code, *capsys.readouterr())

    return call


def test_run_records_and_shows_the_table(effbook):
    status, out, err = effbook("run", "tab-0.1", "--profile", "mini")
    assert (status, out) == (0, "table tab-0.1 mini\n")
    assert "[2/2] door" in err
    assert [record.metrics["seed"] for record in records.all_records("mini")] in ([0, 1], [1, 0])
    assert "2 of 2 runs are recorded" in effbook("run", "tab-0.1")[2]
    assert "[2/2] door" in effbook("run", "tab-0.1", "--fresh", "--quiet")[2]


def test_run_of_a_system_shows_the_tables_that_its_runs_are_in(effbook):
    assert effbook("run", "nola", "--profile", "smoke")[1] == "table tab-0.1 smoke\n"


def test_records_of_other_code_are_shown_and_end_in_one_sentence(effbook, monkeypatch):
    effbook("run", "tab-0.1")
    monkeypatch.setattr(records, "is_stale", lambda record: True)
    status, out, err = effbook("run", "tab-0.1")
    assert status == 1
    assert out == "table tab-0.1 mini\n"
    assert "2 of the records were made by other code; recompute them with --fresh" in err


def test_runs_that_the_machine_cannot_do_are_left_out_before_anything_starts(effbook, monkeypatch):
    monkeypatch.setattr(Door, "needs", lambda self: ("program:no-such-program",) if self.seed else ())
    status, _, err = effbook("run", "tab-0.1")
    assert status == 1
    assert "1 of 2 runs were left out, as they need" in err
    assert "no-such-program" in err
    assert [record.metrics["seed"] for record in records.all_records("mini")] == [0]


def test_seeds_says_how_many(effbook):
    assert effbook("run", "tab-0.1", "--seeds", "3")[0] == 0
    assert sorted(record.metrics["seed"] for record in records.all_records("mini")) == [0, 1, 2]


def test_plan_runs_nothing_and_sums(effbook):
    status, out, _ = effbook("plan", "tab-0.1")
    assert status == 0
    assert "2 runs, 0 recorded (0 stale), 2 to do" in out
    assert records.all_records("mini") == []


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("run", "tab-9"), 1, "did you mean tab-0.1"),
        (("run", "tab-0.1", "--profile", "mimi"), 1, "did you mean mini"),
        (("run", "tab-0.1", "--sedes", "3"), 2, "No such option: --sedes"),
        (("run", "tab-0.1", "--seeds", "0"), 2, "--seeds"),
        (("run", "tab-0.1", "--jobs", "two"), 2, "--jobs"),
        (("run",), 2, "Missing argument"),
        (("rum",), 2, "No such command 'rum'"),
        (("plan", "tab-0.1", "--profile", "big"), 1, "no profile 'big'"),
        (("bench", "nolla"), 1, "did you mean nola"),
        (("data", "fetch", "no-such-data"), 1, "no-such-data"),
        (("data", "verify", "no-such-data"), 1, "no-such-data"),
        (("show", "tab-99"), 1, "tab-99"),
    ],
)
def test_a_mistyped_word_is_one_sentence_and_a_failure(effbook, monkeypatch, arguments, status, words):
    def shown(name, profile):
        raise EffbookError(f"there is no exhibit {name}", "look again")

    monkeypatch.setattr(exhibits, "show_terminal", shown)
    found, out, err = effbook(*arguments)
    assert found == status
    assert out == ""
    assert words in err
    assert err.startswith("effbook: ")
    assert err.count("\n") == 1


def test_a_run_that_fails_is_one_sentence_with_its_traceback_only_under_debug(effbook, monkeypatch):
    monkeypatch.setattr(Door, "act", ZeroDivisionError("divided"))
    status, out, err = effbook("run", "tab-0.1")
    assert (status, out) == (1, "")
    assert "2 of 2 runs failed" in err
    assert "Traceback" not in err
    status, _, err = effbook("run", "tab-0.1", "--debug")
    assert status == 1
    assert "Traceback" in err
    assert "ZeroDivisionError: divided" in err


def test_an_unexpected_error_says_how_to_get_the_traceback(effbook, monkeypatch):
    monkeypatch.setattr(exhibits, "recipes_of", lambda what, profile: 1 / 0)
    status, _, err = effbook("plan", "tab-0.1")
    assert status == 1
    assert (
        err == "effbook: unexpected ZeroDivisionError: division by zero; call again with --debug for the traceback.\n"
    )


def test_an_interrupt_says_that_the_run_goes_on(effbook, monkeypatch):
    monkeypatch.setattr(Door, "act", KeyboardInterrupt())
    status, _, err = effbook("run", "tab-0.1")
    assert status == 130
    assert "the same command again goes on from the last checkpoint" in err


def test_data_list_and_verify_tell_the_cache(effbook, monkeypatch):
    name = next(iter(data.manifests()))
    monkeypatch.setattr(data, "is_cached", lambda one: one == name)
    monkeypatch.setattr(data, "verify", lambda one: [])
    assert name in effbook("data", "list")[1]
    assert effbook("data", "verify")[:2] == (0, f"{name}: verified\n")
    monkeypatch.setattr(data, "verify", lambda one: ["file x is truncated"])
    status, out, err = effbook("data", "verify")
    assert (status, out) == (1, f"{name}: file x is truncated\n")
    assert f"effbook data fetch {name}" in err


def test_what_has_no_published_checksum_is_told_but_is_no_damage(effbook, monkeypatch):
    monkeypatch.setattr(data, "verify", lambda one: ["unpinned: its home publishes no checksum"])
    status, out, _ = effbook("data", "verify", "alpaca")
    assert status == 0
    assert "unpinned" in out


def test_data_fetch_goes_on_past_one_that_fails_and_exits_with_1(effbook, monkeypatch, tmp_path):
    def fetch(name, *, progress=False, recheck=False):
        assert recheck  # a name given: its files are read again, byte by byte
        if name == "digits":
            raise EffbookError("digits could not be fetched", "try later")
        return tmp_path / name

    monkeypatch.setattr(data, "fetch", fetch)
    status, out, err = effbook("data", "fetch", "digits", "mnist")
    assert status == 1
    assert out == f"mnist: {tmp_path / 'mnist'}\n"
    assert "1 could not be fetched: digits" in err


def test_bench_prints_ratios_and_check_fails_on_a_missed_figure(effbook, monkeypatch):
    monkeypatch.setattr(ledger, "_benches", {})
    monkeypatch.setattr(experiments, "load", lambda: None)
    ledger.register_bench("nola", "bytes", lambda: ledger.ratio(3, 1, "bytes"), "<= 2")
    status, out, _ = effbook("bench", "nola")
    assert status == 0
    assert "3.000" in out
    assert "missed" in out
    status, _, err = effbook("bench", "nola", "--check")
    assert status == 1
    assert "1 figures are missed: bytes" in err


def test_doctor_tells_the_machine_and_every_profile(effbook, monkeypatch):
    monkeypatch.setattr(Door, "needs", lambda self: ("package:no_such_package",))
    monkeypatch.setattr(exhibits, "recipes_of", lambda what, profile: [Door()])
    status, out, _ = effbook("doctor")
    assert status == 0
    assert all(word in out for word in ("processor", "GPU", "smoke", "mini", "lab", "paper"))
    assert "0 of 1 runs" in out


def test_help_imports_nothing_heavy():
    heavy = "{'torch', 'transformers', 'pandas', 'matplotlib', 'scipy', 'pydantic', 'numba'}"
    code = f"import sys, effbook.cli; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
