"""What gsplat compiles its CUDA kernels with. Its wheel holds their source; the first call builds them.

`needs` says it in the words of a recipe's `needs`, without torch; `check` is asked by the CUDA engine before it works.
"""

import importlib.util
import os
import shutil
from functools import cache
from pathlib import Path

from effbook.errors import EffbookError

DEVICE = "cuda"  # only runs on such a device have this module in their fingerprint
STANDARD_HOME = Path("/usr/local/cuda")


def needs() -> tuple[str, ...]:
    """A card, gsplat, and the programs that build its kernels: ("cuda", "package:gsplat", "program:nvcc", ...)."""
    return ("cuda", "package:gsplat", *(f"program:{program}" for program in programs()))


def programs() -> tuple[str, ...]:
    """Names or paths of the programs that gsplat's first call runs; none where its kernels came compiled.

    They are found as torch finds them: nvcc in $CUDA_HOME, on the path or in /usr/local/cuda, the C++ compiler as $CXX
    names it, ninja on the path.
    """
    if _comes_compiled():
        return ()
    return (_nvcc(), (os.environ.get("CXX") or "c++").split()[0], "ninja")


@cache  # of success only: an error is raised each time
def check() -> None:
    """Raise EffbookError, naming what is missing, if gsplat's first call could not compile its kernels."""
    if importlib.util.find_spec("gsplat") is None:
        raise EffbookError("drawing on CUDA needs the package gsplat", "pip install gsplat")
    if missing := [program for program in programs() if shutil.which(program) is None]:
        raise EffbookError(
            f"gsplat compiles its CUDA kernels when first used, and {' and '.join(missing)} cannot be run here",
            "install the CUDA toolkit, a C++ compiler and ninja, or draw on the CPU",
        )


def _comes_compiled() -> bool:
    """Whether gsplat was installed with its kernels, as from its own index of wheels."""
    found = importlib.util.find_spec("gsplat")
    folders = found.submodule_search_locations if found is not None else None
    return any(file.suffix in (".so", ".pyd") for folder in folders or () for file in Path(folder).glob("csrc.*"))


def _nvcc() -> str:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if home is None and shutil.which("nvcc") is None:
        home = str(STANDARD_HOME)
    inside = Path(home or "", "bin", "nvcc")
    return str(inside) if home and inside.is_file() else "nvcc"
