"""Scenes of Gaussians to turn around on a page: two beside each other, drawn in the browser by Spark.

The libraries come from npm once (manifests `three` and `spark`) and are laid into the built site as one classic script,
which a page loads when the reader asks for it. The scenes lie in the page itself: a page that is opened as a file may
not read other files.
"""

import base64
import json
from dataclasses import dataclass
from html import escape
from pathlib import Path

from effbook.errors import EffbookError

PLACE = "_static/splats/splats.js"  # in the site

# Both libraries are CommonJS modules; Spark needs one small class of three.js's examples, which is not in its bundle.
SHIM = """globalThis.effbookSplats = {};
(function () {
  const modules = {};
  function require(name) {
    if (!(name in modules)) throw new Error("no module " + name);
    return modules[name];
  }
  {
    const module = { exports: {} }, exports = module.exports;
    (function (module, exports) { %(three)s
    })(module, exports);
    modules["three"] = module.exports;
  }
  const THREE = modules["three"];
  class FullScreenQuad {
    constructor(material) {
      const geometry = new THREE.BufferGeometry();
      geometry.setAttribute("position", new THREE.Float32BufferAttribute([-1, 3, 0, -1, -1, 0, 3, -1, 0], 3));
      geometry.setAttribute("uv", new THREE.Float32BufferAttribute([0, 2, 0, 0, 2, 0], 2));
      this.mesh = new THREE.Mesh(geometry, material);
      this.camera = new THREE.OrthographicCamera(-1, 1, 1, -1, 0, 1);
    }
    get material() { return this.mesh.material; }
    set material(value) { this.mesh.material = value; }
    render(renderer) { renderer.render(this.mesh, this.camera); }
    dispose() { this.mesh.geometry.dispose(); }
  }
  modules["three/addons/postprocessing/Pass.js"] = { FullScreenQuad };
  {
    const module = { exports: {} }, exports = module.exports;
    (function (module, exports, require) { %(spark)s
    })(module, exports, require);
    Object.assign(globalThis.effbookSplats, { THREE }, module.exports);
  }
})();
"""


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
    own = (Path(__file__).parent / "splats.js").read_text(encoding="utf-8")
    return SHIM % {"three": three, "spark": spark} + own


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
    others = [name for name in scenes if name != first]
    options = "".join(f'<option value="{escape(name)}">{escape(scenes[name][0])}</option>' for name in others)
    return (
        '<div class="splats"><p><button type="button" class="splats-open">Open the scene</button> '
        f"<label>compared with <select disabled>{options}</select></label></p>"
        + "".join(
            '<figure><canvas width="512" height="512" tabindex="0" aria-label="a scene to turn: drag, or use the arrow '
            'keys"></canvas><figcaption class="splats-label"></figcaption></figure>'
            for _ in range(2)
        )
        + f'<script type="application/json">{json.dumps(told)}</script>'
        + "<script>(function (root) {"
        + 'root.querySelector(".splats-open").addEventListener("click", function () { this.disabled = true;'
        + "const told = JSON.parse(root.querySelector(\"script[type='application/json']\").textContent);"
        + "const go = () => globalThis.effbookSplats.open(root, told);"
        + "if (globalThis.effbookSplats) return go();"
        + 'const s = document.createElement("script");'
        + f's.src = "{"../" * depth}{PLACE}"; s.onload = go; document.head.append(s); }});'
        + "})(document.currentScript.parentElement);</script></div>"
    )
