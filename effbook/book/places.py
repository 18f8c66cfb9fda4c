"""Where the book's sources are, and where on the site an exhibit stands."""

import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
import yaml

from effbook.errors import EffbookError
from effbook.exhibits.listing import Entry

HIDDEN = {"remove-cell", "remove-output"}
ANCHOR = re.compile(r'<div class="eff-exhibit" id="([^"]+)">')


def repository_root() -> Path:
    """The checkout that holds the book's sources."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "_toc.yml").is_file():
        raise EffbookError(
            f"The book's sources are not beside the package in {root}",
            "install effbook from a checkout: pip install -e .",
        )
    return root


@dataclass(frozen=True)
class Places:
    """Where on the site an exhibit stands; addresses are seen from the site's root."""

    shown: dict[str, set[str]]  # the notebooks' pages, without suffix, with the exhibits that each shows
    pages: set[str]  # all pages that the table of contents names

    def notebook(self, one: Entry) -> str | None:
        """Its place in its notebook, or that notebook's page where it does not show it; None where there is none."""
        page = one.notebook.removesuffix(".ipynb")
        if page not in self.shown:
            return None
        return f"{page}.html#{one.id}" if one.id in self.shown[page] else f"{page}.html"

    def printed(self, one: Entry) -> str | None:
        """Its place on its chapter's page of what is printed."""
        page = f"book/printed/{one.chapter}"
        return f"{page}.html#{one.id}" if page in self.pages else None

    def errata(self, one: Entry) -> str | None:
        """Its errata on the page of all."""
        return f"book/errata.html#{one.id}" if one.errata and "book/errata" in self.pages else None


def toc_files(root: Path) -> list[str]:
    """The files that _toc.yml names, in order."""
    found: list[str] = []

    def walk(part: object) -> None:
        if isinstance(part, dict):
            found.extend(str(part[key]) for key in ("root", "file") if key in part)
            for value in part.values():
                walk(value)
        elif isinstance(part, list):
            for value in part:
                walk(value)

    walk(yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8")))
    return found


def places(stage: Path) -> Places:
    """What the staged notebooks show, and what pages there are."""
    shown = {}
    for path in stage.glob("notebooks/**/*.ipynb"):
        cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        outputs = [o for c in cells if not HIDDEN & set(c.metadata.get("tags", ())) for o in c.outputs]
        html = "".join(output.get("data", {}).get("text/html", "") for output in outputs)
        shown[path.with_suffix("").relative_to(stage).as_posix()] = set(ANCHOR.findall(html))
    return Places(shown=shown, pages={name.removesuffix(".ipynb") for name in toc_files(stage)})
