"""Colours of badges and verdicts, by the rule of contrast for small text (WCAG AA), on the pages' backgrounds."""

import re
from pathlib import Path

import pytest

from effbook.book.site import repository_root
from effbook.exhibits.html import FOLDER

BACKGROUNDS = {"light": ("#ffffff", "#f4f6f8"), "dark": ("#14181e", "#22272e")}
SHEETS = (FOLDER / "exhibit.css", repository_root() / "book" / "_static" / "effbook.css")
RULE = re.compile(r"(html\[data-theme=\"dark\"\] )?(\.eff-[\w.-]+)\s*\{\s*color:\s*(#[0-9a-f]{6})")
COLOURED = {".eff-badge", ".eff-badge.eff-mini", ".eff-badge.eff-lab", ".eff-badge.eff-paper"}
COLOURED |= {".eff-holds", ".eff-fails", ".eff-undecided", ".eff-not-run"}


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda path: Path(path).name)
def test_badges_and_verdicts_are_read_on_light_and_on_dark_pages(sheet):
    found = {"light": {}, "dark": {}}
    for dark, selector, colour in RULE.findall(sheet.read_text(encoding="utf-8")):
        found["dark" if dark else "light"][selector] = colour
    for theme, colours in found.items():
        assert set(colours) >= COLOURED, theme
        for selector in COLOURED:
            worst = min(contrast(colours[selector], back) for back in BACKGROUNDS[theme])
            assert worst >= 4.5, (theme, selector, worst)


def test_both_sheets_agree():
    one, other = (set(RULE.findall(sheet.read_text(encoding="utf-8"))) for sheet in SHEETS)
    assert one == other
