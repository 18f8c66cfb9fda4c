"""Where the output goes: a pipe that closes, a full disk, a terminal that is narrow or knows no UTF-8; and Ctrl-C."""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest

from effbook import data, exhibits
from effbook.errors import EffbookError

COMMAND = [sys.executable, "-c", "from effbook.cli import main; main()"]


def called(*arguments, stdout=subprocess.PIPE, **environment):
    """The command in a process of its own: (exit status, output, errors), as bytes."""
    changed = {name: str(value) for name, value in environment.items()}
    done = subprocess.run([*COMMAND, *arguments], stdout=stdout, stderr=subprocess.PIPE, env={**os.environ, **changed})
    return done.returncode, done.stdout, done.stderr


def test_a_pipe_that_nobody_reads_ends_the_command_without_a_word():
    read, write = os.pipe()
    os.close(read)
    status, _, err = called("data", "list", stdout=write)
    os.close(write)
    assert status == 1
    assert err == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_an_output_on_a_full_disk_is_told():
    with open("/dev/full", "wb") as full:
        status, _, err = called("data", "list", stdout=full)
    assert status == 1
    assert err == b"effbook: the disk that is written to is full; free some space on it, and call again.\n"


@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": 0, "PYTHONCOERCECLOCALE": 0}]
)
def test_a_terminal_without_utf8_gets_what_it_can_show(environment):
    status, out, err = called("data", "list", COLUMNS=20, **environment)
    assert (status, err) == (0, b"")
    assert out.decode("ascii").count("\n") > 40
    status, _, err = called("data", "fetch", "größe", **environment)
    assert status == 1
    assert b"there is no data set called" in err
    assert b"Traceback" not in err


@pytest.mark.parametrize(
    ("line", "columns"),
    [(line, 20) for line in ("exhibits", "show fig-B.1", "errata", "plan fig-B.1", "--help", "data list")]
    + [("data list", columns) for columns in (1, 0, "x")],
)
def test_a_narrow_terminal_is_no_failure(effbook, monkeypatch, tmp_path, line, columns):
    monkeypatch.setenv("EFFBOOK_RECORDS", str(tmp_path))
    monkeypatch.setenv("COLUMNS", str(columns))
    status, out, err = effbook(*line.split())
    assert (status, err) == (0, "")
    assert out


def test_an_interrupt_anywhere_is_one_sentence(effbook, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "fetch", interrupted)
    assert effbook("data", "fetch", "mnist") == (
        130,
        "",
        "effbook: interrupted; the same command again goes on with what was not finished.\n",
    )


def test_a_signal_ends_a_waiting_command_in_one_sentence():
    waiting = (
        "import signal, time, effbook.cli.tables as t; t.show_data = lambda: (print('on', flush=True), time.sleep(60))"
    )
    heard = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # who starts the tests may have it ignored
    start = f"{waiting}; {heard}; from effbook.cli import main; main(['data', 'list'])"
    process = subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"on\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.startswith(b"effbook: interrupted; ")
    assert err.count(b"\n") == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), "the disk that /x/y is to be written to is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "/x/y cannot be read or written"),
        (MemoryError(), "the memory of this machine is used up"),
        (ModuleNotFoundError("No module named 'abc'", name="abc.d"), "the package abc is not installed; pip install"),
    ],
)
def test_what_the_machine_refuses_is_a_sentence_with_its_remedy(door, effbook, monkeypatch, error, words):
    def refuse(*_):
        raise error

    monkeypatch.setattr(exhibits, "recipes_of", refuse)
    status, out, err = effbook("plan", "tab-0.1")
    assert (status, out) == (1, "")
    assert words in err
    assert "; " in err
    assert "unexpected" not in err
    assert err.count("\n") == 1


def test_a_record_that_cannot_be_read_is_named_once_and_the_others_are_shown(effbook, monkeypatch, tmp_path):
    from effbook.runs.execute import execute

    monkeypatch.setenv("EFFBOOK_RECORDS", str(tmp_path / "records"))
    monkeypatch.setenv("EFFBOOK_WORK", str(tmp_path / "work"))
    recipe = exhibits.recipes_of("fig-1.1", "paper")[0]
    execute(recipe, profile="paper", quiet=True)
    (path,) = (tmp_path / "records").glob("*/*/*.json")
    path.write_text("{")
    for arguments in (("exhibits",), ("exhibits", "--json")):
        status, out, err = effbook(*arguments)
        assert status == 1
        assert "tab-3.12" in out
        assert err.startswith(f"effbook: the record {path} cannot be read")
        assert err.count("\n") == 1
        if arguments[1:]:
            assert len(json.loads(out)) > 90
    with pytest.raises(EffbookError, match="cannot be read"):
        exhibits.measured("fig-1.1", "paper")
