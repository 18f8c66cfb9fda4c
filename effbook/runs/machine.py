"""What this machine is, and what it lacks for a recipe."""

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import platformdirs
import psutil

from effbook.places import folder_named

GIB = 2**30
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
_PACKAGES = (
    "accelerate", "bitsandbytes", "datasets", "faiss-cpu", "gguf", "gsplat", "gsply", "mitsuba", "nltk", "numba",
    "numpy", "peft", "pillow", "pycolmap", "rouge-score", "sacrebleu", "safetensors", "scikit-learn", "scipy",
    "timm", "tokenizers", "torch", "torchao", "torchmetrics", "torchvision", "transformers", "triton", "zstandard",
)  # fmt: skip


@dataclass(frozen=True)
class Card:
    """A CUDA GPU of this machine: `name` is what CUDA_VISIBLE_DEVICES calls it."""

    name: str
    size_bytes: int


def missing(needs: tuple[str, ...]) -> list[str]:
    """What this machine lacks of a recipe's `needs`, in words; empty if it can run."""
    return [lack for need in needs if (lack := _lack(need)) is not None]


def _lack(need: str) -> str | None:
    kind, _, what = need.partition(":")
    if kind in ("cuda", "gpu-gib"):
        memory = gpu_bytes()
        if memory is None:
            return "a CUDA GPU" + (f" with {what} GiB" if what else "")
        return f"a GPU with {what} GiB (this has {memory / GIB:.0f})" if what and memory < float(what) * GIB else None
    if kind == "gpus":
        return f"{what} GPUs (this has {len(cards())})" if len(cards()) < int(what) else None
    if kind == "memory-gib":
        return f"{what} GiB of memory" if psutil.virtual_memory().total < 0.95 * float(what) * GIB else None
    if kind == "package":
        return None if importlib.util.find_spec(what) else f"the package {what}"
    if kind == "program":
        return None if shutil.which(what) else f"the program {what}"
    raise ValueError(f"unknown need {need!r}")


def gpu_bytes() -> int | None:
    """Memory of the largest CUDA GPU; None without one."""
    return max((card.size_bytes for card in cards()), default=None)


@cache
def cards() -> tuple[Card, ...]:
    """The CUDA GPUs that this process may use."""
    if importlib.util.find_spec("torch") is None or not _has_driver():
        return ()
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    given = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    names = given if len(given) >= count else [str(index) for index in range(count)]
    return tuple(Card(names[index], torch.cuda.get_device_properties(index).total_memory) for index in range(count))


def _has_driver() -> bool:
    """Whether a GPU's driver is here; where none is, nobody needs torch (two seconds, 300 MB) to know that."""
    if "torch" in sys.modules or Path("/dev/kfd").exists():
        return True
    for library in ("libcuda.so.1", "nvcuda.dll"):
        try:
            ctypes.CDLL(library)
        except OSError:
            continue
        return True
    return False


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def device() -> str:
    """The machine's processor in words: the GPU where there is one, else the CPU."""
    if gpu_bytes() is not None:
        import torch

        return torch.cuda.get_device_name(0)
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{model}, {cores()} cores"


def threads() -> int:
    """Threads that torch computes with."""
    return sys.modules["torch"].get_num_threads() if "torch" in sys.modules else cores()


@cache
def packages() -> dict[str, str]:
    """Versions of the installed packages that numbers may depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@cache
def repository() -> Path | None:
    """The checkout that effbook runs from; None where it is installed without one."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").exists() else None


def records_folder() -> Path:
    """$EFFBOOK_RECORDS, or book/records of the checkout, or else a folder of the user's."""
    root = repository()
    default = root / "book" / "records" if root else platformdirs.user_data_path("effbook") / "records"
    return folder_named("EFFBOOK_RECORDS", default)


def commit() -> tuple[str | None, bool | None]:
    """The checkout's commit, and whether its code differs from it (records and prose don't count)."""
    root = repository()
    if root is None:
        return None, None
    code = ["effbook", "data_manifests", "pyproject.toml"]
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head, bool(_git(root, "status", "--porcelain", "--", *code))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()
