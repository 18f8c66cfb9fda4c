"""Looks for anything that a browser would load from elsewhere for a built site; links that a reader clicks are fine."""

import functools
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

from effbook.errors import EffbookError

# (tag, attribute) pairs that make a browser fetch something without being asked
LOADING = {
    ("script", "src"),
    ("img", "src"),
    ("img", "srcset"),
    ("source", "src"),
    ("source", "srcset"),
    ("video", "src"),
    ("video", "poster"),
    ("audio", "src"),
    ("iframe", "src"),
    ("embed", "src"),
    ("object", "data"),
    ("image", "href"),
    ("use", "href"),
    ("input", "src"),
    ("form", "action"),
}
LOADING_RELATIONS = {"stylesheet", "icon", "shortcut", "preload", "prefetch", "modulepreload", "preconnect", "manifest"}
REMOTE = re.compile(r"\s*(?:https?:)?//", re.IGNORECASE)
CSS_REMOTE = re.compile(r"(?:url\(\s*|@import\s+(?:url\(\s*)?)[\"']?((?:https?:)?//[^\"')\s;]+)", re.IGNORECASE)


class _Loads(HTMLParser):
    """Collects the addresses that a page loads, and those of files of the site that it refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.remote: list[str] = []
        self.local: list[str] = []
        self.ids: set[str] = set()
        self._in_style = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self._in_style = tag == "style"
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        relations = set(given.get("rel", "").lower().split())
        for name, value in given.items():
            loads = (tag, name) in LOADING or (tag == "link" and name == "href" and relations & LOADING_RELATIONS)
            if name == "style":
                self.remote += CSS_REMOTE.findall(value)
            elif loads and REMOTE.match(value):
                self.remote.append(value.strip())
            elif name in ("href", "src") and not REMOTE.match(value):
                self.local.append(value)

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.remote += CSS_REMOTE.findall(data)


def remote_assets(site: Path) -> dict[str, list[str]]:
    """Find what the site's pages and style sheets load from elsewhere: {file: [addresses]}, empty if all is at home."""
    found = {}
    for path in _pages(site):
        if addresses := _read(path).remote:
            found[path.relative_to(site).as_posix()] = addresses
    for path in sorted(site.rglob("*.css")):
        if addresses := CSS_REMOTE.findall(path.read_text(encoding="utf-8")):
            found[path.relative_to(site).as_posix()] = addresses
    return found


def broken_links(site: Path) -> dict[str, list[str]]:
    """Find references of pages to files, or places on pages, that the site doesn't have: {page: [addresses]}."""
    found = {}
    read = functools.cache(_read)
    for path in _pages(site):
        missing = [address for address in read(path).local if not _exists(path, address, read)]
        if missing:
            found[path.relative_to(site).as_posix()] = missing
    return found


def check_site(site: Path) -> None:
    """Raise EffbookError if the site loads anything from elsewhere or links to a file that isn't there."""
    for what, found in (("loads", remote_assets(site)), ("links to the missing", broken_links(site))):
        if found:
            page, addresses = next(iter(found.items()))
            count = sum(map(len, found.values()))
            raise EffbookError(
                f"The page {page} of the site {what} {addresses[0]} ({count} such in all)",
                "change the page so that everything it needs lies in the site",
            )


def _pages(site: Path) -> list[Path]:
    """The site's pages; below _static lie templates that no browser opens."""
    return [path for path in sorted(site.rglob("*.html")) if path.relative_to(site).parts[0] != "_static"]


def _read(path: Path) -> _Loads:
    page = _Loads()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def _exists(page: Path, address: str, read: Callable[[Path], _Loads]) -> bool:
    if re.match(r"[a-z][a-z0-9+.-]*:", address, re.IGNORECASE):  # data:, mailto:, javascript:
        return True
    name, _, anchor = address.partition("#")
    name = unquote(name.partition("?")[0])
    target = (page.parent / name).resolve() if name else page
    if not target.exists():
        return False
    return not anchor or target.suffix != ".html" or unquote(anchor) in read(target).ids
