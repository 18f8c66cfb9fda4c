"""The check that a built site loads nothing from elsewhere."""

import pytest

from effbook.book.check import broken_links, check_site, remote_assets
from effbook.errors import EffbookError


def site(folder, body="", css=""):
    (folder / "page.html").write_text(f"<html><head></head><body>{body}</body></html>")
    (folder / "style.css").write_text(css)
    return folder


@pytest.mark.parametrize(
    "body",
    [
        '<script src="https://example.org/x.js"></script>',
        '<script src="//example.org/x.js"></script>',
        '<link rel="stylesheet" href="http://example.org/x.css">',
        '<link rel="preload" as="font" href="https://example.org/x.woff2">',
        '<img src="https://example.org/x.png">',
        '<img srcset="https://example.org/x.png 2x">',
        '<video poster="https://example.org/x.png"></video>',
        '<iframe src="https://example.org"></iframe>',
        '<div style="background: url(https://example.org/x.png)"></div>',
        "<style>@import 'https://example.org/x.css';</style>",
    ],
)
def test_a_page_that_loads_from_elsewhere_is_found(tmp_path, body):
    assert list(remote_assets(site(tmp_path, body))) == ["page.html"]


@pytest.mark.parametrize(
    "css",
    [
        "@font-face { src: url(https://example.org/x.woff2) }",
        '@import url("//example.org/x.css");',
        "@import 'https://example.org/x.css';",
    ],
)
def test_a_style_sheet_that_loads_from_elsewhere_is_found(tmp_path, css):
    assert list(remote_assets(site(tmp_path, css=css))) == ["style.css"]


def test_links_for_the_reader_and_files_of_the_site_are_fine(tmp_path):
    (tmp_path / "x.js").write_text("")
    body = '<a href="https://example.org">there</a><script src="x.js?v=1"></script><img src="data:image/png;base64,AA">'
    check_site(site(tmp_path, body, css="p { background: url(x.png) }"))


def test_a_link_to_a_file_or_a_place_that_is_not_there_is_found(tmp_path):
    body = '<p id="here">h</p><a href="gone.html#part">x</a><a href="page.html?a=1#here">y</a><a href="#there">z</a>'
    body += '<a href="page.html#there">v</a><a href="#">top</a><a href="?a=1">w</a><a href="style.css#x">u</a>'
    assert broken_links(site(tmp_path, body)) == {"page.html": ["gone.html#part", "#there", "page.html#there"]}


def test_the_first_finding_is_told_in_one_sentence(tmp_path):
    with pytest.raises(EffbookError, match=r"page\.html .* loads https://example\.org/x\.js \(1 such in all\)"):
        check_site(site(tmp_path, '<script src="https://example.org/x.js"></script>'))
