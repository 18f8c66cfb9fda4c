"""Every wrong command line ends in one sentence with its remedy, a status above 0 and nothing written.

All but the last tests read the real register; the folders of records, work and data are the test's own, and empty.
"""

import os
import sys
from pathlib import Path

import pytest

LONG = "a" * 5000
DEEP = "/tmp" + "/a" * 3000


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Folders for records, work and data that are not there yet; to be in the one above, with a file and a folder."""
    for name in ("RECORDS", "WORK", "DATA"):
        monkeypatch.setenv(f"EFFBOOK_{name}", str(tmp_path / name.lower()))
    monkeypatch.delenv("EFFBOOK_LOCAL", raising=False)
    monkeypatch.delenv("EFFBOOK_MANIFESTS", raising=False)
    (tmp_path / "file").write_text("x")
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(effbook, folders):
    """refused("plan", "x", status=1): the sentence, after it was looked at and nothing was found written."""

    def call(*arguments, status=1):
        before = listing(folders)
        found, out, err = effbook(*arguments)
        assert found == status, (found, out, err)
        assert out == ""
        assert err.startswith("effbook: ")
        assert err.endswith(".\n")
        assert err.count("\n") == 1, err
        assert "; " in err  # cause; remedy
        assert "--debug" not in err  # as after what nobody foresaw
        assert "Traceback" not in err
        assert err[:-1].isprintable()
        assert len(err) < 2100
        assert listing(folders) == before
        return err

    return call


def listing(folder: Path) -> list[tuple[str, int, int]]:
    """Every path below a folder, with its size and time."""
    stats = [(path, path.lstat()) for path in sorted(folder.rglob("*"))]
    return [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats]


NO_NAMES = ("", " ", "/", "//", ".", "..", "*", "\0", "\n", "-", "é", LONG)
NAMING = (
    "run",
    "plan",
    "show",
    "reported --csv",
    "measured --csv",
    "bench",
    "data fetch",
    "data verify",
    "stale",
    "recheck",
)


@pytest.mark.parametrize("name", NO_NAMES)
@pytest.mark.parametrize("line", NAMING)
def test_what_is_no_name_is_told_without_a_guess(refused, line, name):
    err = refused(*line.split(), name)
    assert "did you mean" not in err
    assert "nearest" not in err


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("tab-3.1/", "tab-3.1"),
        ("tab-3.1\0", "tab-3.1"),
        ("nola/", "nola"),
        ("../nola", "nola"),
        ("nola\nnola", "nola"),
        ("notebooks/nola/langage", "language"),
        ("All", "all"),
    ],
)
@pytest.mark.parametrize("command", ["run", "plan", "stale", "recheck"])
def test_a_name_that_is_nearly_right_is_guessed(refused, command, name, meant):
    guess = refused(command, name).partition("did you mean ")[2]
    assert meant in guess


BEYOND = "9" * 30
LINES = [
    ("rum", 2, "No such command 'rum'; Did you mean 'run'; see 'effbook --help'"),
    ("data fech", 2, "see 'effbook data --help'"),
    ("book bild", 2, "Did you mean 'build'"),
    ("--profile mini", 2, "No such option: --profile"),
    ("run", 2, "Missing argument 'WHAT...'; see 'effbook run --help'"),
    ("plan", 2, "Missing argument"),
    ("show", 2, "Missing argument 'ID'"),
    ("run nola --sedes 3", 2, "Possible options: --seeds"),
    ("run nola --seeds", 2, "requires an argument"),
    ("run nola --seeds 0", 2, "'--seeds': Input should be greater than or equal to 1"),
    ("run nola --seeds -1", 2, "'--seeds'"),
    ("run nola --seeds two", 2, "'--seeds'"),
    ("run nola --seeds 1.5", 2, "'--seeds'"),
    (f"run nola --seeds {BEYOND}", 2, "'--seeds'"),
    ("plan nola --seeds 1001", 2, "'--seeds': Input should be less than or equal to 1000"),
    ("run nola --jobs 0", 2, "'--jobs'"),
    ("run nola --jobs -2", 2, "'--jobs'"),
    ("run nola --jobs two", 2, "'--jobs'"),
    (f"run nola --jobs {BEYOND}", 2, "'--jobs'"),
    ("run nola --fresh=yes", 2, "--fresh"),
    ("run nola --profile mimi", 1, "did you mean mini"),
    ("plan nola --profile big", 1, "there is no profile 'big'; known are smoke, mini, lab, paper"),
    ("show tab-3.12 --profile Mini", 1, "did you mean mini"),
    ("measured tab-3.12 --csv --profile x", 1, "no profile 'x'"),
    ("exhibits --profile x", 1, "no profile 'x'"),
    ("exhibits --json --profile x", 1, "no profile 'x'"),
    ("book build --profile x", 1, "no profile 'x'"),
    ("exhibits --chapter nolla", 1, "did you mean nola"),
    ("exhibits --kind tabel", 1, "did you mean table"),
    ("exhibits --state measurd", 1, "did you mean measured"),
    ("exhibits --verdict hold", 1, "did you mean holds"),
    ("exhibits --json --verdict hold", 1, "did you mean holds"),
    ("exhibits tab-3.12", 2, "unexpected extra argument(s)"),
    ("errata --chapter 3", 1, "there is no chapter '3'"),
    ("errata nola", 2, "unexpected extra argument(s)"),
    ("show tab-3.12 tab-3.13", 2, "unexpected extra argument(s)"),
    ("show nola", 1, "there is no exhibit 'nola'"),
    ("reported tab-3.12", 1, "call 'effbook reported tab-3.12 --csv'"),
    ("measured tab-3.12", 1, "call 'effbook measured tab-3.12 --csv'"),
    ("data fetch no-such-data", 1, "no data set called 'no-such-data'"),
    ("data fetch ../mnist", 1, "mnist"),
    ("data fetch data_manifests/mnist.yaml", 1, "no data set"),
    ("data verify /etc/passwd", 1, "no data set"),
    ("data fetch --quietly", 2, "--quiet"),
    ("data list mnist", 2, "unexpected extra argument(s)"),
    ("bench nolla", 1, "did you mean nola"),
    ("bench nola compgs", 2, "unexpected extra argument(s)"),
    ("stale --again", 2, "No such option: --again"),
    ("recheck nola --jobs 0", 2, "'--jobs'"),
    ("recheck nola --agan", 2, "--again"),
    ("cache nola", 2, "No such command 'nola'"),
    ("cache prune everything", 2, "unexpected extra argument(s)"),
    ("cache prune --al", 2, "--all"),
    ("doctor nola", 2, "unexpected extra argument(s)"),
    ("book serve 80", 2, "unexpected extra argument(s)"),
]


@pytest.mark.parametrize(("line", "status", "words"), LINES)
def test_a_mistyped_line_is_told_with_the_way_out(refused, line, status, words):
    assert words in refused(*line.split(), status=status)


# ------------------------------------------------------------------------------------- folders that cannot be used

NO_FOLDERS = ("file", "file/below", "/dev/null", "~nobody-of-that-name/x", DEEP, "/tmp/" + LONG)
READERS = {
    "EFFBOOK_RECORDS": (
        "run nola --profile smoke",
        "plan nola",
        "exhibits",
        "show tab-3.12",
        "measured tab-3.12 --csv",
    ),
    "EFFBOOK_WORK": ("run nola --profile smoke", "plan nola"),
    "EFFBOOK_DATA": ("run nola --profile smoke", "data fetch mnist", "data list", "data verify"),
    "EFFBOOK_MANIFESTS": ("run nola --profile smoke", "data fetch mnist", "data list", "data verify"),
}


@pytest.mark.parametrize("given", NO_FOLDERS)
@pytest.mark.parametrize(
    ("variable", "line"), [(variable, line) for variable, lines in READERS.items() for line in lines]
)
def test_a_folder_that_cannot_be_one_is_told_by_its_variable(refused, monkeypatch, variable, line, given):
    monkeypatch.setenv(variable, given)
    assert variable in refused(*line.split())


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
@pytest.mark.parametrize("variable", ["EFFBOOK_RECORDS", "EFFBOOK_WORK", "EFFBOOK_DATA"])
def test_a_folder_that_cannot_be_made_is_told_before_the_first_run(effbook, folders, monkeypatch, variable):
    monkeypatch.setenv(variable, "/proc/effbook")
    status, out, err = effbook("run", "nola", "--profile", "smoke")
    assert (status, out) == (1, "")
    assert "/proc/effbook is not there, or cannot be made" in err
    assert err.count("\n") == 1
    assert not [path for path in folders.rglob("*") if path.is_file() and path.name != "file"]


def test_a_missing_folder_of_manifests_is_told(refused, monkeypatch, folders):
    monkeypatch.setenv("EFFBOOK_MANIFESTS", str(folders / "none"))
    assert "set EFFBOOK_MANIFESTS to that of a checkout" in refused("data", "list")


@pytest.mark.parametrize("variable", ["EFFBOOK_RECORDS", "EFFBOOK_WORK", "EFFBOOK_DATA", "EFFBOOK_LOCAL"])
def test_relative_paths_and_the_home_are_made_absolute_for_what_runs_elsewhere(effbook, folders, monkeypatch, variable):
    monkeypatch.setenv("HOME", str(folders))
    monkeypatch.setenv(variable, "there")
    assert effbook("data", "list")[0] == 0
    assert os.environ[variable] == str(folders / "there")
    monkeypatch.setenv(variable, "~/there")
    effbook("data", "list")
    assert os.environ[variable] == str(folders / "there")


def test_several_local_folders_are_each_made_absolute_and_an_empty_list_is_none(effbook, folders, monkeypatch):
    monkeypatch.setenv("EFFBOOK_LOCAL", os.pathsep.join(["there", "", "file"]))
    effbook("data", "list")
    assert os.environ["EFFBOOK_LOCAL"] == os.pathsep.join([str(folders / "there"), str(folders / "file")])
    monkeypatch.setenv("EFFBOOK_LOCAL", os.pathsep)
    assert effbook("data", "list")[0] == 0


# ---------------------------------------------------------------------------------------------- files that are broken

BROKEN = [
    (b"name: [", "line "),
    (b"name: \xff\xfe", "utf-8"),
    (b"name: \x00", "characters are not allowed"),
    (b"", "valid dictionary"),
    (b"- a list", "valid dictionary"),
    (None, "cannot be read"),
]


@pytest.mark.parametrize(("content", "words"), BROKEN)
@pytest.mark.parametrize("line", ["data list", "data fetch thing", "data verify thing"])
def test_a_broken_manifest_is_named(refused, folders, monkeypatch, line, content, words):
    monkeypatch.setenv("EFFBOOK_MANIFESTS", str(folders / "there"))
    put(folders / "there" / "thing.yaml", content)
    err = refused(*line.split())
    assert "thing.yaml" in err
    assert words in err


@pytest.mark.parametrize(("content", "words"), BROKEN)
@pytest.mark.parametrize("line", ["exhibits", "show tab-3.12", "plan nola", "run nola"])
def test_a_broken_exhibit_is_named(refused, folders, monkeypatch, line, content, words):
    put(folders / "there" / "tab-3.12.yaml", content)
    room = sys.modules["effbook.exhibits.register"]
    monkeypatch.setattr(room, "FOLDER", folders / "there")
    monkeypatch.setattr(room.register, "__defaults__", (folders / "there",))
    err = refused(*line.split())
    assert "tab-3.12.yaml" in err
    assert words in err


def put(path: Path, content: bytes | None) -> None:
    """A file, or a folder in its place."""
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
