"""The tiers of dependencies (pyproject.toml): each room works with its own tier alone."""

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Runs before the code of a test: what lies outside the tier cannot be found.
REFUSING = """
import sys
class Refuse:
    def __init__(self, others):
        self.others = others
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            return None
        return next((spec for one in self.others if (spec := one.find_spec(name, path, target))), None)
    def find_distributions(self, *context):
        for one in self.others:
            yield from getattr(one, "find_distributions", lambda *_: ())(*context)
sys.meta_path[:] = [Refuse(list(sys.meta_path))]
import importlib.metadata
installed = importlib.metadata.requires
importlib.metadata.requires = lambda name: REQUIRES if name == "effbook" else installed(name)
"""


def wanted(tier: str) -> list[Requirement]:
    """What a tier brings, and those that it stands on; "" is what `pip install effbook` brings."""
    found = [Requirement(line) for line in PROJECT["dependencies"]]
    for line in PROJECT["optional-dependencies"][tier] if tier else ():
        one = Requirement(line)
        found += wanted(next(iter(one.extras))) if one.name == "effbook" else [one]
    return found


def installed_with(tier: str) -> set[str]:
    """Names of the distributions that a tier brings, with all that they need in turn."""
    done: set[tuple[str, str]] = set()
    to_do = [(one.name, extra) for one in wanted(tier) for extra in ("", *one.extras)]
    while to_do:
        name, extra = to_do.pop()
        name = canonicalize_name(name)
        if (name, extra) in done:
            continue
        done.add((name, extra))
        try:
            lines = importlib.metadata.requires(name) or ()
        except importlib.metadata.PackageNotFoundError:  # for another platform
            continue
        for one in map(Requirement, lines):
            if one.marker is None or one.marker.evaluate(default_environment() | {"extra": extra}):
                to_do += [(one.name, each) for each in ("", *one.extras)]
    return {name for name, _ in done}


def run_with(tier: str, code: str) -> subprocess.CompletedProcess:
    """Run code where every module of a distribution outside the tier is refused."""
    kept = installed_with(tier) | {"effbook", "pip", "setuptools"}
    distributions = importlib.metadata.packages_distributions()
    refused = {m for m, names in distributions.items() if not kept & set(map(canonicalize_name, names))}
    requires = PROJECT["dependencies"] + [
        f"{line} ; extra == '{tier}'" for tier, lines in PROJECT["optional-dependencies"].items() for line in lines
    ]
    start = f"REFUSED = {refused!r}\nREQUIRES = {requires!r}\n{REFUSING}\n"
    return subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True)


NOLA = """
import pathlib, tempfile, torch
from effbook.nola import NOLASettings, adapt, load, save
model = adapt(torch.nn.Sequential(torch.nn.Linear(8, 8)), NOLASettings(k=4, l=4, rank=2), targets=["0"])
with tempfile.TemporaryDirectory() as folder:
    save(model, pathlib.Path(folder) / "a.safetensors", bits=4)
    load(model, pathlib.Path(folder) / "a.safetensors")
"""
COMPGS = """
import pathlib, tempfile, torch
import effbook.gaussians.train, effbook.gaussians.scenes, effbook.evaluate.images
from effbook.compgs import CompGSSettings, Storage, books, compress, read, write
from effbook.gaussians.formats import read_ply, read_spz, write_ply, write_spz
from effbook.gaussians.model import from_points
model = from_points(torch.rand(40, 3), torch.rand(40, 3))
with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    write_ply(model, folder / "a.ply")
    write_spz(read_ply(folder / "a.ply"), folder / "a.spz")
    read_spz(folder / "a.spz")
    small = compress(model, CompGSSettings(books=books(colour=4, covariance=4)))
    write(small, folder / "a.compgs", Storage(entropy=True))
    read(folder / "a.compgs")
"""
CMSF = """
import torch, effbook.cmsf
from effbook.cmsf import PreviousEpoch, fit
encoder = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
fit(encoder, torch.rand(8, 3, 8, 8), constraint=PreviousEpoch(k=2, k_prime=2), epochs=1, batch=4)
"""
SIMREG = """
import torch, effbook.simreg
from effbook.simreg import distill, DistillSettings
teacher, student = (
    torch.nn.Sequential(torch.nn.Conv2d(3, d, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()) for d in (8, 4)
)
distill(teacher, student, torch.rand(8, 3, 8, 8), settings=DistillSettings(epochs=1, batch=4))
"""
SLOWFORMER = """
import torch
from types import SimpleNamespace
from effbook.slowformer import AttackConfig, SurrogateLoss, defend, judge, save_patch, train_perturbation, train_patch
class Red:
    def run(self, images, execution="dropped"):
        share = self.surrogate(images).double()
        return SimpleNamespace(logits=images.mean((2, 3)), macs=100 * share, usage={}, trace=None)
    def surrogate(self, images):
        return images[:, 0].mean((1, 2))
    def bound(self):
        return SimpleNamespace(low_macs=0.0, high_macs=100.0)
images = torch.rand(8, 3, 8, 8)
patch, _ = train_patch(Red(), images, loss=SurrogateLoss(), config=AttackConfig(patch_px=4, steps=2, batch=4))
judge(Red(), images, patch)
"""
ADAPTIVE = """
from effbook.adaptive import *
AViTConfig(), AtsConfig(), AdaViTConfig(), TrainConfig()
"""
LABS = """
from effbook.book import check_parameters
from effbook.book.choices import AtLeast, Profile
from effbook.book.labs import expect, images, measured, private
expect("two images", list(images("toy-shapes", "test", count=2)[0].shape), [2, 3, 32, 32])
"""
COMMANDS = """
from effbook import cli, experiments
experiments.load()
cli.main(["show", "fig-3.7", "--profile", "paper"])
"""
DOOR = "from effbook import cli; cli.main({words!r})"


@pytest.mark.parametrize(
    "code",
    [NOLA, COMPGS, CMSF, SIMREG, ADAPTIVE, SLOWFORMER, LABS],
    ids=["nola", "compgs and gaussians", "cmsf", "simreg", "adaptive", "slowformer", "what a student's lab calls"],
)
def test_the_libraries_work_with_what_a_plain_installation_brings(code):
    done = run_with("", code)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_experiments_and_their_commands_need_nothing_of_the_book():
    done = run_with("experiments", COMMANDS)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "fig-3.7" in done.stdout


@pytest.mark.parametrize(
    ("tier", "words", "told"),
    [
        ("", ["run", "fig-3.3", "--profile", "smoke"], "effbook[experiments]"),
        ("experiments", ["book", "build"], "effbook[book]"),
    ],
)
def test_a_command_whose_tier_is_missing_names_the_tier_in_one_sentence(tier, words, told, tmp_path, monkeypatch):
    for name in ("RECORDS", "WORK", "DATA"):
        monkeypatch.setenv(f"EFFBOOK_{name}", str(tmp_path / name))
    done = run_with(tier, DOOR.format(words=words))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(f"is not installed; pip install '{told}'.")
    assert "Traceback" not in done.stderr


def test_every_import_of_the_package_is_declared_and_the_lock_holds_all_tiers():
    distributions = importlib.metadata.packages_distributions()
    in_lock = {canonicalize_name(one.name) for one in wanted("dev")}
    declared = in_lock | {"triton", "effbook", "ray"}  # torch brings triton; ray is for clusters, and not in the lock
    used: set[str] = set()
    for path in (Path(__file__).parents[1] / "effbook").rglob("*.py"):
        used |= set(imported(path))
    undeclared = {
        module
        for module in used - set(sys.stdlib_module_names) - {"effbook"}
        if module in distributions and not declared & set(map(canonicalize_name, distributions[module]))
    }
    assert undeclared == set()
    lock = (Path(__file__).parents[1] / "requirements.txt").read_text(encoding="utf-8").splitlines()
    locked = {canonicalize_name(Requirement(line).name) for line in lock if line and not line.startswith("#")}
    assert in_lock - locked - {"effbook"} == set()


def imported(path: Path):
    """Top-level modules that a file imports, wherever in it."""
    import ast

    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]
