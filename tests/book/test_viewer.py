"""The viewer of scenes: what lies in the page, what is loaded when asked for, what happens without the libraries."""

import base64
import json
import re
import shutil
import subprocess

import pytest

from effbook import data
from effbook.book import viewer
from effbook.book.check import remote_assets
from effbook.errors import EffbookError

LOOK = viewer.Look(target=(0.0, 0.0, -0.3), distance=4.0)


@pytest.fixture
def libraries(tmp_path, monkeypatch):
    """Stand-ins for the two libraries, as CommonJS modules."""
    for name, text in (
        ("three/three.cjs", "exports.Color = class {}; exports.name = 'three';"),
        ("spark/spark.cjs.min.js", "const t = require('three'); exports.SplatMesh = class { three() { return t; } };"),
    ):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(data, "fetch", lambda name, **_: tmp_path / name)
    return tmp_path


def scenes(tmp_path):
    found = {}
    for i, name in enumerate(("plain", "small", "smaller")):
        (tmp_path / f"{name}.spz").write_bytes(bytes([i, 1, 2]))
        found[name] = (f"{name}: {10 - i} kB", tmp_path / f"{name}.spz")
    return found


def test_the_scenes_lie_in_the_page_and_the_script_is_loaded_when_asked_for(libraries, tmp_path):
    page = viewer.html(scenes(tmp_path), "plain", look=LOOK)
    told = json.loads(re.search(r'<script type="application/json">(.*?)</script>', page)[1])
    assert base64.b64decode(told["scenes"]["smaller"]["data"]) == bytes([2, 1, 2])
    assert told["first"] == "plain"
    assert told["look"]["target"] == [0.0, 0.0, -0.3]
    assert re.findall(r'<option value="(\w+)">', page) == ["small", "smaller"]
    assert "../../_static/splats/splats.js" in page
    assert "<script src" not in page
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "page.html").write_text(page)
    assert remote_assets(tmp_path / "site") == {}


def test_a_label_cannot_end_the_script_that_holds_it(libraries, tmp_path):
    found = scenes(tmp_path) | {"bad": ("</script><b>", tmp_path / "plain.spz")}
    page = viewer.html(found, "plain", look=LOOK)
    assert page.count("</script>") == 2
    told = json.loads(re.search(r'<script type="application/json">(.*?)</script>', page)[1])
    assert list(told["scenes"]) == list(found)
    assert told["scenes"]["bad"]["label"] == "</script><b>"


def test_each_pane_can_be_reached_and_told_without_a_mouse(libraries, tmp_path):
    page = viewer.html(scenes(tmp_path), "plain", look=LOOK)
    assert page.count("<canvas") == 2
    assert page.count('tabindex="0"') == 2
    assert page.count("aria-label") == 2
    assert "ArrowLeft" in viewer.script()


def test_the_bundle_is_one_classic_script_with_both_libraries(libraries, tmp_path):
    node = shutil.which("node") or pytest.skip("node is not here")
    bundle = tmp_path / "bundle.js"
    bundle.write_text(
        viewer.script()
        + "\nconst s = globalThis.effbookSplats;"
        + "console.log(s.THREE.name, new s.SplatMesh().three().name, typeof s.open);"
    )
    done = subprocess.run([node, str(bundle)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["three", "three", "function"]


def test_without_the_libraries_the_page_says_so_and_has_no_viewer(tmp_path, monkeypatch, capsys):
    def fetch(name, **_):
        raise EffbookError(f"{name} cannot be had", "connect")

    monkeypatch.setattr(data, "fetch", fetch)
    assert viewer.html(scenes(tmp_path), "plain", look=LOOK) == ""
    assert "three cannot be had: the viewer of scenes is left out" in capsys.readouterr().out
