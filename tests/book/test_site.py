"""Building the site: a tiny book, what is generated for it, and the whole book at smoke."""

import shutil

import nbformat
import pytest

from effbook.book import pages, site
from effbook.errors import EffbookError

LISTED = [
    {
        "id": "tab-3.12",
        "kind": "table",
        "title": "Rank & <size>",
        "section": "3.2.4.1",
        "notebook": "notebooks/nola/language.ipynb",
        "reported": True,
        "why": None,
        "systems": ["nola"],
        "profiles": {"mini": {"runs": 6, "recorded": 4, "stale": 1}},
        "claims": [{"id": "a", "text": "It holds.", "verdicts": {"mini": "holds", "paper": "not run"}}],
    },
    {
        "id": "fig-3.6",
        "kind": "figure",
        "title": "The method",
        "section": "3.2.1",
        "notebook": "notebooks/nola/method.ipynb",
        "reported": False,
        "why": "a drawing",
        "systems": ["nola"],
        "profiles": {"mini": {"runs": 0, "recorded": 0, "stale": 0}},
        "claims": [],
    },
]


@pytest.fixture
def tiny(tmp_path, monkeypatch, write_notebook):
    """A book of one page and one notebook, with the project's own configuration."""
    root = tmp_path / "book-root"
    (root / "book" / "_static").mkdir(parents=True)
    (root / "notebooks").mkdir()
    shutil.copy(site.repository_root() / "_config.yml", root)
    (root / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters:\n- file: notebooks/a\n- file: book/exhibits\n"
    )
    (root / "book" / "index.md").write_text("# Tiny\n\nSee {doc}`../notebooks/a`: $x^2$.\n")
    (root / "book" / "reading.md").write_text("# Reading\n")
    (root / "book" / "references.bib").write_text("")
    (root / "book" / "records" / "mini" / "nola").mkdir(parents=True)
    (root / "book" / "records" / "mini" / "nola" / "r.json").write_text("{}")
    cells = ['profile: str = "mini"  # smoke, mini, lab or paper', "print(profile, 'here')"]
    write_notebook(root / "notebooks" / "a.ipynb", cells, title="A notebook")
    (tmp_path / "mathjax.js").write_text("// stands for MathJax")
    monkeypatch.setattr(site, "mathjax", lambda: tmp_path / "mathjax.js")
    monkeypatch.setattr(pages, "EXHIBITS_INTRO", "# All exhibits\n\n")
    return root


@pytest.mark.slow
def test_a_tiny_book_is_built_without_a_warning_and_only_what_changed_runs_again(tiny):
    said = []
    html = site.build("mini", root=tiny, say=said.append)
    assert html == tiny / "_build" / "mini" / "html"
    page = (html / "notebooks" / "a.html").read_text()
    assert "mini here" in page
    assert "injected" not in page
    assert (html / "records" / "mini" / "nola" / "r.json").is_file()
    assert (html / "_static" / "mathjax" / site.MATHJAX).is_file()
    assert "_static/mathjax" in (html / "book" / "index.html").read_text()
    assert 'id="tab-3.12"' in (html / "book" / "exhibits.html").read_text()

    site.build("mini", root=tiny, say=said.append)
    assert [line.rsplit(": ")[-1] for line in said if "a.ipynb" in line] == ["executed", "unchanged"]

    (tiny / "book" / "index.md").write_text("# Tiny\n\nSee {doc}`nowhere`.\n")
    with pytest.raises(EffbookError, match=r"1 warnings, the first: .*nowhere"):
        site.build("mini", root=tiny, say=said.append)
    assert "x^2" in (html / "book" / "index.html").read_text()  # the site built before is still there


def test_the_notebooks_of_the_table_of_contents_are_found_in_order(tmp_path):
    (tmp_path / "_toc.yml").write_text(
        "root: book/index\nparts:\n- caption: A\n  chapters:\n  - file: notebooks/x/b\n    sections:\n"
        "    - file: notebooks/x/a.ipynb\n  - file: book/z\n"
    )
    assert site.toc_notebooks(tmp_path) == ["notebooks/x/b.ipynb", "notebooks/x/a.ipynb"]


def test_every_notebook_of_the_repository_is_in_the_table_of_contents():
    root = site.repository_root()
    listed = set(site.toc_notebooks(root))
    assert listed == {path.relative_to(root).as_posix() for path in (root / "notebooks").glob("*/*.ipynb")}


def test_the_overview_names_state_and_verdict_and_links_to_pages_that_exist():
    html = pages.exhibits_html(LISTED, profile="mini", pages={"notebooks/nola/method"})
    assert 'href="../notebooks/nola/method.html"' in html
    assert "language.html" not in html
    assert "Rank &amp; &lt;size&gt;" in html
    assert "4 of 6 runs recorded, 1 stale" in html
    assert "a drawing" in html
    assert 'class="eff-verdict eff-holds"' in html
    assert 'data-verdicts="holds"' in html


def test_an_injected_cell_is_shown_only_where_it_changes_something():
    def with_injected(source):
        notebook = nbformat.v4.new_notebook()
        declared = nbformat.v4.new_code_cell(
            'profile: str = "mini"  # smoke or mini', metadata={"tags": ["parameters"]}
        )
        injected = nbformat.v4.new_code_cell(source, metadata={"tags": ["injected-parameters"]})
        notebook.cells = [declared, injected]
        site.hide_injected(notebook)
        return "remove-cell" in notebook.cells[1].metadata.tags

    assert with_injected('# Parameters\nprofile = "mini"\nruns = "recorded"\n')
    assert not with_injected('# Parameters\nprofile = "smoke"\n')


@pytest.mark.slow
def test_the_whole_book_builds_at_smoke_without_a_warning(tmp_path):
    html = site.build("smoke", work=tmp_path, say=lambda line: None)
    for name in ("book/index", "book/nola/index", "book/exhibits", "notebooks/nola/method"):
        assert (html / f"{name}.html").is_file()
