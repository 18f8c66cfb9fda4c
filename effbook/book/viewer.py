"""Scenes of Gaussians to turn around on a page: two beside each other, drawn in the browser by Spark.

The libraries come from npm once (manifests `three` and `spark`) and are laid into the built site as one classic script,
which a page loads when the reader asks for it. The scenes lie in the page itself: a page that is opened as a file may
not read other files.
"""

import base64
from dataclasses import dataclass
from pathlib import Path

from effbook.book.templating import rendered
from effbook.errors import EffbookError

HERE = Path(__file__).parent
PLACE = "_static/splats/splats.js"  # in the site


@dataclass(frozen=True, kw_only=True)
class Look:
    """Where the camera turns around, from how far, with which field of view, before which background."""

    target: tuple[float, float, float] = (0.0, 0.0, 0.0)
    distance: float = 4.0
    fov_degrees: float = 40.0
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)


def script() -> str | None:
    """The bundle's text; None, with a sentence, where the libraries are not here and cannot be fetched."""
    from effbook import data

    try:
        three = (data.fetch("three") / "three.cjs").read_text(encoding="utf-8")
        spark = (data.fetch("spark") / "spark.cjs.min.js").read_text(encoding="utf-8")
    except EffbookError as error:
        print(f"{error.cause}: the viewer of scenes is left out.")
        return None
    shim, own = ((HERE / name).read_text(encoding="utf-8") for name in ("splats_modules.js", "splats.js"))
    return shim.replace("/* three */", three).replace("/* spark */", spark) + own


def html(scenes: dict[str, tuple[str, Path]], first: str, *, look: Look, depth: int = 2) -> str:
    """A viewer: `first` on the left, one of the others on the right; `scenes`: name -> (label with size, .spz file).

    `depth` is how many folders below the site's top the page lies. Empty where the libraries cannot be had.
    """
    if script() is None:
        return ""
    told = {
        "first": first,
        "look": {
            "target": look.target,
            "distance": look.distance,
            "fov": look.fov_degrees,
            "background": look.background,
        },
        "scenes": {
            name: {"label": label, "data": base64.b64encode(path.read_bytes()).decode()}
            for name, (label, path) in scenes.items()
        },
    }
    others = {name: label for name, (label, _) in scenes.items() if name != first}
    return rendered("viewer.html", others=others, told=told, script=f"{'../' * depth}{PLACE}")
