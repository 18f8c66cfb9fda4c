"""Building the site: a tiny book, what is generated for it, and the whole book at smoke."""

import importlib
import shutil

import nbformat
import pytest

from effbook import exhibits
from effbook.book import execution, site
from effbook.errors import EffbookError
from effbook.exhibits import register

SHOWN = "from effbook.exhibits import html as page\n\npage.show('tab-3.17', profile, plot=False)"


@pytest.fixture
def tiny(tmp_path, monkeypatch, write_notebook):
    """A book of one page and one notebook, with the project's own configuration."""
    root = tmp_path / "book-root"
    (root / "book" / "_static").mkdir(parents=True)
    (root / "notebooks").mkdir()
    shutil.copy(site.repository_root() / "_config.yml", root)
    (root / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters:\n- file: notebooks/a\n- file: book/reading\n"
        "- file: book/exhibits\n  sections:\n  - file: book/printed/nola\n- file: book/errata\n"
    )
    (root / "book" / "index.md").write_text("# Tiny\n\nSee {doc}`../notebooks/a`: $x^2$.\n")
    (root / "book" / "reading.md").write_text("# Reading\n")
    (root / "book" / "references.bib").write_text("")
    (root / "book" / "records" / "mini" / "nola").mkdir(parents=True)
    (root / "book" / "records" / "mini" / "nola" / "r.json").write_text("{}")
    cells = [
        'from effbook.book.choices import Profile\n\nprofile: Profile = "mini"  # the scale',
        "print(profile, 'here')",
        SHOWN,
    ]
    write_notebook(root / "notebooks" / "a.ipynb", cells, title="A notebook")
    (tmp_path / "mathjax.js").write_text("// stands for MathJax")
    monkeypatch.setattr(site, "mathjax", lambda: tmp_path / "mathjax.js")
    monkeypatch.setenv("EFFBOOK_RECORDS", str(root / "book" / "records"))
    known = {name: one.model_copy(update={"notebook": "notebooks/a.ipynb"}) for name, one in register().items()}
    few = {name: known[name] for name in ("fig-3.7", "tab-3.17", "tab-3.18")}
    monkeypatch.setattr(exhibits, "register", lambda: few)
    monkeypatch.setattr(importlib.import_module("effbook.exhibits.listing"), "register", lambda: few)
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
    overview = (html / "book" / "exhibits.html").read_text()
    assert 'href="../notebooks/a.html#tab-3.17"' in overview  # which the notebook shows
    assert 'href="../notebooks/a.html"' in overview  # which does not show fig-3.7
    assert 'href="../book/printed/nola.html#fig-3.7"' in overview
    assert 'href="../book/errata.html#tab-3.18"' in overview
    printed = (html / "book" / "printed" / "nola.html").read_text()
    assert [printed.count(f'id="{name}"') for name in ("fig-3.7", "tab-3.17", "tab-3.18")] == [1, 1, 1]
    assert printed.count(".eff-exhibit{margin") == 1
    assert 'href="../book/printed/nola.html#tab-3.18"' in (html / "book" / "errata.html").read_text()

    (tiny / "book" / "index.md").write_text("# Tiny\n\nSee {doc}`nowhere`.\n")
    with pytest.raises(EffbookError, match=r"1 warnings, the first: .*nowhere"):
        site.build("mini", root=tiny, say=said.append)
    assert [line for line in said if "notebook" in line] == [
        "[1/1] notebooks/a.ipynb: executed",
        "1 of 1 notebooks: unchanged",
    ]
    assert "x^2" in (html / "book" / "index.html").read_text()  # the site built before is still there


def test_the_notebooks_of_the_table_of_contents_are_found_in_order(tmp_path):
    (tmp_path / "_toc.yml").write_text(
        "root: book/index\nparts:\n- caption: A\n  chapters:\n  - file: notebooks/x/b\n    sections:\n"
        "    - file: notebooks/x/a.ipynb\n  - file: book/z\n"
    )
    assert execution.toc_notebooks(tmp_path) == ["notebooks/x/b.ipynb", "notebooks/x/a.ipynb"]


def test_every_notebook_of_the_repository_is_in_the_table_of_contents():
    root = site.repository_root()
    listed = set(execution.toc_notebooks(root))
    assert listed == {path.relative_to(root).as_posix() for path in (root / "notebooks").glob("*/*.ipynb")}


def test_an_injected_cell_is_shown_only_where_it_changes_something():
    def with_injected(source):
        notebook = nbformat.v4.new_notebook()
        declared = nbformat.v4.new_code_cell(
            'profile: Profile = "mini"  # the scale', metadata={"tags": ["parameters"]}
        )
        injected = nbformat.v4.new_code_cell(source, metadata={"tags": ["injected-parameters"]})
        notebook.cells = [declared, injected]
        site.hide_injected(notebook)
        return "remove-cell" in notebook.cells[1].metadata.tags

    assert with_injected('# Parameters\nprofile = "mini"\nruns = "recorded"\n')
    assert not with_injected('# Parameters\nprofile = "smoke"\n')


@pytest.mark.slow
@pytest.mark.xdist_group("the whole book")
def test_the_whole_book_builds_at_smoke_without_a_warning(smoke_book):
    _, html = smoke_book
    for name in (
        "book/index",
        "book/nola/index",
        "book/exhibits",
        "book/printed/nola",
        "book/errata",
        "notebooks/nola/method",
    ):
        assert (html / f"{name}.html").is_file()
