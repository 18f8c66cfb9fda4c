"""The program: quick to start, and one sentence for every failure."""

import subprocess
import sys

import pytest

from effbook import exhibits
from effbook.errors import EffbookError


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
def test_a_mistyped_word_is_one_sentence_and_a_failure(door, effbook, monkeypatch, arguments, status, words):
    def shown(name, profile):
        raise EffbookError(f"there is no exhibit {name}", "look again")

    monkeypatch.setattr(exhibits, "show_terminal", shown)
    found, out, err = effbook(*arguments)
    assert found == status
    assert out == ""
    assert words in err
    assert err.startswith("effbook: ")
    assert err.count("\n") == 1


def test_an_unexpected_error_says_how_to_get_the_traceback(door, effbook, monkeypatch):
    monkeypatch.setattr(exhibits, "recipes_of", lambda what, profile: 1 / 0)
    status, _, err = effbook("plan", "tab-0.1")
    assert status == 1
    assert (
        err == "effbook: unexpected ZeroDivisionError: division by zero; call again with --debug for the traceback.\n"
    )


def test_help_imports_nothing_heavy():
    heavy = "{'torch', 'transformers', 'pandas', 'matplotlib', 'scipy', 'pydantic', 'numba'}"
    code = f"import sys, effbook.cli; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("line", ["--help", "data list", "data verify", "cache --help"])
def test_what_only_shows_imports_no_torch(line, tmp_path, monkeypatch):
    for variable in ("EFFBOOK_RECORDS", "EFFBOOK_DATA"):  # nothing there, so that nothing is read
        monkeypatch.setenv(variable, str(tmp_path))
    code = f"""
import contextlib, os, sys
from effbook import cli
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(open(os.devnull, "w")):
    cli.main({line.split()})
print(sorted({{"torch", "numba", "transformers"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
