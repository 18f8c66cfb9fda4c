"""A page for each measured value: it holds the number that the table prints, and each seed's own."""

import html
import json
import re
from html.parser import HTMLParser

import pytest

from effbook import exhibits, experiments
from effbook.book.cells import write_cells
from effbook.book.places import Places
from effbook.exhibits.html import printed_html

NOWHERE = Places(shown={}, pages=set())
EXHIBITS = ("tab-2.8", "tab-3.16", "tab-3.17", "tab-3.1")  # with draws, with seeds, counted, with a unit


class Cells(HTMLParser):
    """The links to pages of values in a table, with their texts."""

    def __init__(self):
        super().__init__()
        self.found, self.open = {}, None

    def handle_starttag(self, tag, attributes):
        place = dict(attributes).get("href") or ""
        self.open = place.partition("cells/")[2] if tag == "a" and "/cells/" in place else None

    def handle_data(self, data):
        if self.open:
            self.found[self.open], self.open = data, None


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    experiments.load()
    folder, look = tmp_path_factory.mktemp("cells"), exhibits.Look()
    listed = [one for one in exhibits.entries(("mini", "paper"), look) if one.id in EXHIBITS]
    return folder, look, write_cells(folder, listed, NOWHERE, profile="mini", look=look)


@pytest.mark.parametrize("exhibit", EXHIBITS)
def test_every_value_of_a_table_links_to_a_page_that_contains_it_and_each_seeds_record(written, exhibit):
    folder, look, _ = written
    page = Cells()
    page.feed(str(printed_html(exhibit, "mini", look=look)))
    assert page.found
    for place, text in page.found.items():
        told = html.unescape((folder / place).read_text(encoding="utf-8"))
        assert text in told, place
        assert f"effbook run {exhibit} --profile" in told
        data = json.loads((folder / place).with_suffix(".json").read_text(encoding="utf-8"))
        assert data["seeds"]
        for seed in data["seeds"]:
            assert f"../../{seed['record']}" in told
            assert f"{seed['value']:.6g}" in told


def test_a_mean_is_the_mean_of_the_seeds_on_its_page(written):
    data = json.loads((written[0] / "tab-2.8" / "r18-backbone.nn1.json").read_text(encoding="utf-8"))
    assert data["mean"] == pytest.approx(sum(seed["value"] for seed in data["seeds"]) / len(data["seeds"]))
    assert data["draws"] == len(data["seeds"]) == 3


def test_there_is_one_page_a_value_and_nothing_of_it_comes_from_elsewhere(written):
    folder, _, count = written
    pages = sorted(folder.rglob("*.html"))
    assert count == len(pages) == len(sorted(folder.rglob("*.json")))
    assert not any(re.search(r"(src|href)=\"(https?:)?//", page.read_text(encoding="utf-8")) for page in pages)
