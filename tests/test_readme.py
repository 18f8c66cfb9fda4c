"""What the README promises of commands and data."""

import re
from pathlib import Path

from effbook import data, exhibits, experiments
from effbook.errors import EffbookError

ROOT = Path(__file__).parents[1]


def out_of_registries(exhibit):
    """The data sets of an exhibit's mini runs that no package registry carries."""
    names = {name for recipe in exhibits.recipes_of(exhibit, "mini") for name in recipe.datasets()}
    return {name for name in names if not data.manifest(name).in_registries}


def test_the_table_that_first_pages_offer_to_rerun_needs_the_registries_only():
    experiments.load()
    for page in ("README.md", "book/index.md", "book/rerun.md"):
        offered = re.findall(r"effbook run (\S+) --profile mini --fresh", (ROOT / page).read_text(encoding="utf-8"))
        assert offered, page
        assert not any(out_of_registries(exhibit) for exhibit in offered), page


def test_the_readme_names_every_exhibit_that_needs_data_of_no_registry():
    experiments.load()
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    told = re.search(r"A few sets are in no registry:(.*?)\. `effbook data list`", text, re.DOTALL)[1]
    needing = set()
    for name in exhibits.register():
        try:
            needing |= {name} if out_of_registries(name) else set()
        except EffbookError:
            continue  # no mini run
    assert set(re.findall(r"(?:tab|fig)-[\w.]+(?=[,)])", told)) == needing
