"""The generated pages: the list of all exhibits, chapters as printed, errata, and a chapter's ledger."""

import re
import xml.etree.ElementTree as ET

import pytest

from effbook.book import pages, printed
from effbook.book.overview import exhibits_html
from effbook.book.places import Places, toc_files
from effbook.book.site import repository_root
from effbook.book.templating import plain
from effbook.chapters import CHAPTERS
from effbook.exhibits import entries, register
from effbook.exhibits.listing import Entry

ENTRY = {
    "threshold": "<= 1.05",
    "reported": "1.004",
    "reached": False,
    "ratio": {"value": 1.0649, "low": 1.01, "high": 1.1, "a": 1234.4, "b": 1159.2, "unit": "ms", "pairs": 15},
    "provenance": {"device": "two cores", "threads": 2},
}
NONE = {"runs": 0, "recorded": 0, "rechecked": 0, "stale": 0, "state": "no run"}
STATES = {"mini": {"runs": 6, "recorded": 4, "rechecked": 2, "stale": 1, "state": "partly"}, "paper": NONE}
ONE = {
    "id": "tab-3.17",
    "kind": "table",
    "title": "Rank & <size>",
    "section": "3.2",
    "chapter": "nola",
    "notebook": "notebooks/nola/scratch.ipynb",
    "reported": True,
    "why": None,
    "waits_for": None,
    "systems": ["nola"],
    "profiles": STATES,
    "claims": [{"id": "a", "text": "It works.", "verdicts": {"mini": "not run", "lab": "not run", "paper": "fails"}}],
    "errata": 2,
}
WAITS = ONE | {
    "id": "fig-2.1",
    "kind": "figure",
    "chapter": "cmsf",
    "notebook": "notebooks/cmsf/method.ipynb",
    "waits_for": "The recipes of a chapter.",
    "profiles": {"mini": NONE | {"state": "waiting"}, "paper": NONE | {"recorded": 3}},
    "claims": [],
    "errata": 0,
}


def shown(*each, **options):
    return exhibits_html([Entry.model_validate(one) for one in each], **{"profile": "mini", "where": NOWHERE} | options)


NOWHERE = Places(shown={}, pages=set())
EVERYWHERE = Places(
    shown={"notebooks/nola/scratch": {"tab-3.17"}}, pages={"book/errata", "book/printed/nola", "book/printed/cmsf"}
)


def test_a_ratio_that_misses_its_figure_is_shown_as_missed():
    row = pages.bench_table({"step": ENTRY}).splitlines()[2]
    assert row == "| step | 1.06 (1.01 to 1.1, 15 pairs) | 1,234 / 1,159 ms | ✗ ≤ 1.05 | 1.004 |"


def test_a_ratio_of_recorded_runs_names_its_records_and_says_stale_where_they_are():
    read = {key: value for key, value in ENTRY.items() if key != "provenance"} | {
        "records": ["mini/compgs/gone-1.json"]
    }
    told = pages.bench_table({"bytes": read, "step": ENTRY})
    assert "from 1 records (stale)" in told.splitlines()[2]
    assert "- bytes: `mini/compgs/gone-1.json`" in told
    assert told.count("Medians") == 1
    assert "Medians" not in pages.bench_table({"bytes": read})


def test_a_difference_has_a_minus_and_small_numbers_keep_their_digits():
    less = ENTRY | {"ratio": ENTRY["ratio"] | {"value": 5.6, "a": 42.64, "b": 37.0, "unit": "points", "sign": "-"}}
    assert "| 42.6 - 37 points |" in pages.bench_table({"linear": less})


def test_a_ledger_that_was_not_measured_says_so():
    assert "Nothing is benched yet" in pages.bench_table({})


def test_a_verdict_of_another_scale_is_shown_with_its_own_badge():
    html = shown(ONE, filters=False)
    assert html.index("not run") < html.index("fails")
    assert "eff-paper" in html
    assert "eff-lab" not in html
    assert "data-filter" not in html


def test_a_claim_on_counts_alone_has_one_verdict_at_paper_scale():
    counted = {name: "holds" for name in ("smoke", "mini", "lab", "paper")}
    one = ONE | {"claims": [{"id": "a", "text": "It is small.", "verdicts": counted}]}
    html = shown(one, filters=False)
    assert html.count("holds</span>") == 1
    assert "paper, arithmetic" in html
    assert "eff-mini" not in html


def test_the_overview_names_state_and_verdict_of_each_exhibit():
    html = shown(ONE, WAITS)
    assert "Rank &amp; &lt;size&gt;" in html
    assert "4 of 6 runs recorded, 2 rechecked, 1 stale" in html
    assert "The recipes of a chapter. Arithmetic of it is recorded." in html
    assert 'data-chapter="cmsf" data-kind="figure" data-state="waiting" data-verdict=""' in html
    assert 'data-state="partly" data-verdict="not run"' in html
    assert "href" not in html.partition("<table")[2]


def test_the_overview_counts_above_and_each_count_filters():
    html = shown(ONE, WAITS, WAITS | {"id": "prose-2.1", "kind": "prose"})
    above = html.partition("<table")[0]
    assert "<strong>2 exhibits</strong>" in above
    for key, word, told in (
        ("kind", "table", "1 tables"),
        ("kind", "prose", "1 with numbers"),
        ("state", "waiting", "1 waiting"),  # what stands in prose is no exhibit
        ("verdict", "not+run", "1 not run"),
    ):
        assert re.search(rf'href="\?{key}={re.escape(word)}">{told}', above), told
    assert 'option value="cmsf">Constrained mean shift' in above
    assert "SimReg" not in above


def test_a_row_links_to_the_printed_page_and_to_the_notebook_that_shows_it():
    html = shown(ONE, WAITS, where=EVERYWHERE, root="../../")
    first, second = html.split("<tr id=")[1:]
    assert 'href="../../book/printed/nola.html#tab-3.17"' in first
    assert 'href="../../notebooks/nola/scratch.html#tab-3.17"' in first
    assert 'href="../../book/errata.html#tab-3.17">2 errata' in first
    assert 'href="../../book/printed/cmsf.html#fig-2.1"' in second
    assert "notebook" not in second
    hidden = Places(shown={"notebooks/nola/scratch": set()}, pages=set())
    assert 'scratch.html"' in shown(ONE, where=hidden)


@pytest.fixture(scope="module")
def listed():
    return entries(("mini",))


def test_every_chapter_has_a_page_that_the_table_of_contents_names():
    files = toc_files(repository_root())
    assert {f"book/printed/{chapter}" for chapter in CHAPTERS} | {"book/exhibits", "book/errata"} <= set(files)


def test_a_chapters_page_holds_each_of_its_exhibits_once_in_full(listed):
    where = Places(shown={}, pages=set(toc_files(repository_root())))
    for chapter in CHAPTERS:
        found = [one for one in register().values() if one.chapter == chapter]
        text = printed.printed_page(chapter, found, listed, where, profile="mini")
        assert text.count("<style>") == 1
        assert len(re.findall("^## ", text, re.MULTILINE)) == len(found)
        for one in found:
            after = text.partition(f'id="{one.id}"></span>')[2]
            heading, block = re.match(r"\s*```\n## (.*?)\n\n```\{raw\} html\n(.*?)^```$", after, re.M | re.S).groups()
            assert heading.startswith(plain(printed.name_of(one.id)))
            told = "".join(ET.fromstring(block).itertext())
            parts = [one.caption, one.waits_for and one.waits_for.rstrip("."), *one.footnotes.values()]
            parts += [part for e in one.errata for part in (e.text, e.decided)]
            parts += [part for r in one.set_right for part in (r.where, r.read, r.taken, r.because)]
            parts += [part for c in one.claims for part in (c.text, c.source.rstrip("."))]
            parts += [note for row in one.rows for note in row.notes.values()]
            parts += [one.figure.shows, one.figure.given, one.figure.drawn_by] if one.figure else []
            parts += [value for row in one.rows for value in (*row.values.values(), *row.spreads.values())]
            missing = [part for part in parts if part and part not in told]
            assert not missing, (one.id, missing[:3])
            assert not one.errata or f'href="../../book/errata.html#{one.id}"' in block


def test_exhibits_stand_in_the_dissertations_order():
    def order(*sections):
        one = register()["tab-3.12"]
        made = [
            one.model_copy(update={"id": f"{kind[:3]}-{i}", "kind": kind, "section": section})
            for i, (kind, section) in enumerate(sections)
        ]
        return [int(each.id[4:]) for each in printed.in_order(made)]

    assert order(("table", "3.2.9"), ("figure", "3.2.10"), ("figure", "A.1"), ("table", "B.1")) == [0, 1, 2, 3]
    assert order(("figure", "3.1"), ("figure", "3.3"), ("table", "3.2"), ("table", "A.1")) == [0, 2, 1, 3]
    assert order(("table", "3.3"), ("table", "3.2"), ("figure", "3.3")) == [2, 0, 1]  # by number, whatever the section


def test_all_errata_stand_on_one_page_and_apart_what_was_set_right_in_our_text(listed):
    where = Places(shown={}, pages=set(toc_files(repository_root())))
    text = printed.errata_page(list(register().values()), listed, where)
    first, second = text.split("(set-right)=")
    blocks = "".join(re.findall(r"^```\{raw\} html\n(.*?)^```$", first, re.M | re.S))
    told = "".join(ET.fromstring(f"<div>{blocks}</div>").itertext())
    for one in register().values():
        assert all(e.text in told and e.decided in told for e in one.errata), one.id
        assert first.count(f'<p id="{one.id}">') == bool(one.errata)
        assert not one.errata or f'href="../book/printed/{one.chapter}.html#{one.id}"' in first
        assert (f'href="../book/printed/{one.chapter}.html#{one.id}"' in second) == bool(one.set_right), one.id
    assert f"{sum(len(one.errata) for one in register().values())} entries" in first


def test_a_title_is_printed_as_it_is():
    assert plain("A_1 < *B* `c` $d$ [e]") == r"A\_1 \< \*B\* \`c\` \$d\$ \[e\]"
    assert printed.name_of("tab-B.12") == "Table B.12"
    assert printed.name_of("prose-3.2.4.6-time") == "Prose of section 3.2.4.6"
