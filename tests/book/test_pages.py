"""The generated parts of a chapter's page: its claims with their verdicts, and its ledger."""

from effbook.book import pages

ENTRY = {
    "threshold": "<= 1.05",
    "reported": "1.004",
    "reached": False,
    "ratio": {"value": 1.0649, "low": 1.01, "high": 1.1, "a": 1234.4, "b": 1159.2, "unit": "ms", "pairs": 15},
    "provenance": {"device": "two cores", "threads": 2},
}
ONE = {
    "id": "tab-3.17",
    "kind": "table",
    "title": "Training",
    "section": "3.2",
    "notebook": "notebooks/nola/scratch.ipynb",
    "systems": ["nola"],
    "profiles": {},
    "claims": [{"id": "a", "text": "It works.", "verdicts": {"mini": "not run", "lab": "not run", "paper": "fails"}}],
}


def test_a_ratio_that_misses_its_figure_is_shown_as_missed():
    row = pages.bench_table({"step": ENTRY}).splitlines()[2]
    assert row == "| step | 1.06 (1.01 to 1.1, 15 pairs) | 1,234 / 1,159 ms | ✗ ≤ 1.05 | 1.004 |"


def test_a_ledger_that_was_not_measured_says_so():
    assert "Nothing is benched yet" in pages.bench_table({})


def test_a_verdict_of_another_scale_is_shown_with_its_own_badge():
    html = pages.exhibits_html([ONE], profile="mini", pages=set(), filters=False)
    assert html.index("not run") < html.index("fails")
    assert "eff-paper" in html
    assert "eff-lab" not in html
    assert "data-filter" not in html


def test_a_chapters_table_links_from_its_own_folder():
    html = pages.exhibits_html([ONE], profile="mini", pages={"notebooks/nola/scratch"}, root="../../")
    assert 'href="../../notebooks/nola/scratch.html"' in html


def test_a_claim_on_counts_alone_has_one_verdict_at_paper_scale():
    counted = {name: "holds" for name in ("smoke", "mini", "lab", "paper")}
    one = ONE | {"claims": [{"id": "a", "text": "It is small.", "verdicts": counted}]}
    html = pages.exhibits_html([one], profile="mini", pages=set(), filters=False)
    assert html.count("holds</span>") == 1
    assert "paper, arithmetic" in html
    assert "eff-mini" not in html
