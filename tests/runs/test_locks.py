"""Locks: leases on a network's file systems, which another process takes over from one that dies or falls silent."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from filelock import FileLock, SoftFileLease, Timeout

from effbook.files import placed, replace
from effbook.runs import locks
from effbook.runs.progress import Display

HOLD = (
    "import sys, time; from pathlib import Path\n"
    "from effbook.runs import locks; from effbook.runs.progress import Display\n"
    "locks.on_network, locks.LEASE_S = lambda folder: True, 1.5\n"
    "with locks.holding(Path(sys.argv[1]), Display(quiet=True)):\n"
    "    print('held', flush=True); time.sleep(600)\n"
)


@pytest.mark.parametrize(
    ("mounts", "network"),
    [
        ({"/": "ext4"}, False),
        ({"/": "ext4", "/home": "nfs4"}, True),
        ({"/": "nfs4", "/home": "xfs"}, False),
        ({"/": "ext4", "/home/a": "lustre"}, True),
        ({"/": "ext4", "/home/ab": "lustre"}, False),
        ({"/": "overlay", "/home": "fuse.glusterfs"}, True),
    ],
)
def test_the_file_system_of_a_folder_says_whether_others_may_share_it(mounts, network, monkeypatch):
    found = [SimpleNamespace(mountpoint=point, fstype=kind) for point, kind in mounts.items()]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: found)
    assert locks.on_network.__wrapped__(Path("/home/a/records")) is network


def test_a_local_folder_has_locks_of_the_system_and_a_shared_one_leases(tmp_path, monkeypatch):
    assert isinstance(locks.at(locks.lock_path(tmp_path / "a.json")), FileLock)
    monkeypatch.setattr(locks, "on_network", lambda folder: True)
    assert isinstance(locks.at(locks.lock_path(tmp_path / "a.json")), SoftFileLease)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lease_is_held_and_taken_over_from_one_that_dies_or_falls_silent(how, tmp_path, monkeypatch):
    place = tmp_path / "a.json"
    monkeypatch.setattr(locks, "on_network", lambda folder: True)
    monkeypatch.setattr(locks, "LEASE_S", 1.5)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", HOLD, str(place)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            with pytest.raises(Timeout):
                locks.at(locks.lock_path(place), timeout=2.5).acquire()  # longer than a lease: it is renewed
            process.send_signal(how)
            if how == signal.SIGKILL:
                process.wait()
            with locks.holding(place, Display(quiet=True)):
                pass
        finally:
            process.kill()


def test_a_folder_that_another_puts_in_place_first_is_no_failure(tmp_path, monkeypatch):
    place, real = tmp_path / "result", os.replace

    def beaten(new, old):
        if Path(old) == place:  # the other's rename comes in just before
            place.mkdir(exist_ok=True)
            (place / "theirs").touch()
        real(new, old)

    monkeypatch.setattr(os, "replace", beaten)
    with placed(place) as beside:
        beside.mkdir()
        (beside / "ours").touch()
    assert [path.name for path in place.iterdir()] == ["theirs"]
    assert list(tmp_path.iterdir()) == [place]


def test_many_may_put_a_folder_in_one_place_at_once(tmp_path):
    place, failures = tmp_path / "result", []

    def put(number):
        try:
            for i in range(40):
                new = tmp_path / f"new-{number}-{i}"
                new.mkdir()
                (new / "whole").write_text(str(number))
                replace(new, place)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert (place / "whole").read_text() in "0123"
    assert not list(tmp_path.glob(".result.*"))


def test_another_error_brings_back_what_was_there(tmp_path):
    place = tmp_path / "result"
    place.mkdir()
    (place / "old").touch()
    with pytest.raises(FileNotFoundError):
        replace(tmp_path / "missing", place)
    assert [path.name for path in place.iterdir()] == ["old"]


def test_waiting_says_so(tmp_path, capsys):
    place = tmp_path / "a.json"
    locks.locks_folder(tmp_path)
    with FileLock(locks.lock_path(place)):
        waiting = threading.Thread(target=lambda: locks.holding(place, Display()).__enter__(), daemon=True)
        waiting.start()
        until = time.monotonic() + 20
        while "another process computes a" not in (told := capsys.readouterr().err) and time.monotonic() < until:
            time.sleep(0.02)
    assert "another process computes a; waiting for it" in told
