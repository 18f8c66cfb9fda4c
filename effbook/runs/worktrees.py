"""Running a recipe by the code of another commit: git worktrees, and processes that see one of them.

Each process computes on one thread, with records, work and caches of its own, so that it takes over nothing.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from effbook.errors import EffbookError
from effbook.runs import probing
from effbook.runs.cache import work_root
from effbook.runs.machine import THREAD_VARIABLES

TRIED = 40  # commits, to find one that has the fingerprint of a record of a dirty tree
TIMEOUT_S = 1800


class Worktrees:
    """Checkouts of commits beside each other, and where processes work; all of it is removed at the end."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = work_root() / f"recheck-{os.getpid()}"

    def __enter__(self) -> "Worktrees":
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.home, ignore_errors=True)
        self._git("worktree", "prune")

    def folder(self, commit: str) -> Path:
        """The checkout of a commit; EffbookError where this clone does not have it."""
        folder = self.home / commit
        if not folder.is_dir():
            try:
                self._git("worktree", "add", "--force", "--detach", str(folder), commit)
            except subprocess.CalledProcessError:
                raise EffbookError(f"the commit {commit[:10]} is not in this clone", "fetch it") from None
        return folder

    def has(self, commit: str) -> bool:
        """Whether the commit is checked out already."""
        return (self.home / commit).is_dir()

    def later(self, commit: str) -> list[str]:
        """The commits after one that changed the code, the oldest first, and where we are."""
        try:
            found = self._git("log", "--reverse", "--format=%H", f"{commit}..HEAD", "--", "effbook").split()
        except subprocess.CalledProcessError:
            return []
        return found[:TRIED] + found[-1:]

    def ask(
        self, tree: Path, name: str, chapter: str, fields: list[dict[str, Any]], *, run: bool, gpu: bool = False
    ) -> list[dict[str, Any]]:
        """What the code in `tree` answers about recipes of a class; the last answer is {"error"} if its process failed.

        The first is {"fingerprint", "modules"}; with `run`, {"metrics", "series"} or {"error"} follows for each recipe.
        """
        with self._surroundings(tree) as environment:
            if not gpu:
                environment["CUDA_VISIBLE_DEVICES"] = ""
            request = json.dumps({"name": name, "chapter": chapter, "fields": fields, "run": run})
            command = [sys.executable, "-P", probing.__file__]
            try:
                done = subprocess.run(
                    command, input=request, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S
                )
            except subprocess.TimeoutExpired:
                return [{"error": f"it took more than {TIMEOUT_S} s"}]
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
            answers.append({"error": last})
        return answers

    @contextmanager
    def _surroundings(self, tree: Path) -> Iterator[dict[str, str]]:
        """Environment variables for a process: one thread, the code of `tree`, records and work folders of its own.

        Data sets are those of this machine, but nothing that a run keeps beside them: a probe must compute. Only
        pictures that are rendered once (scenes) are shared by the runs of one code.
        """
        from effbook.data.cache import cache_folder
        from effbook.data.manifest import manifests

        folder = self.home / f"run-{time.monotonic_ns()}"
        data, drawn = folder / "data", self.home / f"scenes-{tree.name}"
        data.mkdir(parents=True)
        drawn.mkdir(exist_ok=True)
        (data / "scenes").symlink_to(drawn, target_is_directory=True)
        for name in manifests():
            if (cache_folder() / name).is_dir():
                (data / name).symlink_to(cache_folder() / name, target_is_directory=True)
        own = {
            "EFFBOOK_DATA": str(data),
            "EFFBOOK_WORK": str(folder / "work"),
            "EFFBOOK_RECORDS": str(folder / "records"),
        }
        try:
            yield {
                **os.environ,
                **dict.fromkeys(THREAD_VARIABLES, "1"),
                **{k: str(v) for k, v in own.items()},
                "PYTHONPATH": str(tree),
            }
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _git(self, *arguments: str) -> str:
        """What git prints."""
        command = ["git", "-C", str(self.root), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
