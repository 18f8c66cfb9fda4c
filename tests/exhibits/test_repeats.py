"""Values that the dissertation repeats, or that follow from others that it prints: `repeats.yaml` lists them."""

import itertools
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from effbook.exhibits import exhibit
from effbook.exhibits.text import number

REPEATS = yaml.safe_load(Path(__file__).with_name("repeats.yaml").read_text(encoding="utf-8"))


def text(place: str) -> str:
    """The printed value of exhibit/row/column."""
    exhibit_id, row, column = place.split("/")
    return exhibit(exhibit_id).row(row).values[column]


def half_unit(printed: str) -> float:
    unit = {"M": 1e6, "K": 1e3}.get(printed[-1], 1.0)
    return 0.5 * unit * 10.0 ** -len(printed.rstrip("MKh").partition(".")[2])


def each(places: str) -> list[str]:
    """Places, one for each of the names in braces."""
    parts = [part.strip("{}").split(",") for part in places.split("/")]
    return ["/".join(names) for names in itertools.product(*parts)]


def has_erratum(*places: str) -> bool:
    return any(exhibit(place.split("/")[0]).errata for place in places)


def same(one: str, other: str, within: str = "") -> bool:
    most = float(within) if within else max(half_unit(text(one)), half_unit(text(other)))
    return abs(number(text(one)) - number(text(other))) <= most + 1e-9


def differ(one: str, other: str) -> bool:
    return text(one) != text(other) and has_erratum(one, other)


def mean(printed: str, places: str, within: str, by: str = "1") -> bool:
    values = [number(text(place)) for place in each(places)]
    return abs(statistics.fmean(values) / float(by) - number(text(printed))) <= float(within) + 1e-9


def wrong(printed: str, places: str, within: str) -> bool:
    return not mean(printed, places, within) and has_erratum(printed, places)


def difference(more: str, less: str, points: str) -> bool:
    return abs(number(text(more)) - number(text(less)) - float(points)) <= half_unit(points) + 1e-9


def known(printed: str, value: str, within: str = "") -> bool:
    return abs(number(text(printed)) - float(value)) <= (float(within) if within else half_unit(text(printed))) + 1e-9


def success(exhibit_id: str, attack: str, none: str, full: str) -> bool:
    """100 (attacked - not attacked) / (full - not attacked), within the rounding of each printed figure."""
    attack = attack if "/" in attack else f"{exhibit_id}/{attack}"
    printed = [f"{attack}/gflops", f"{exhibit_id}/{none}/gflops", f"{exhibit_id}/{full}/gflops"]
    around = [(number(text(p)) - half_unit(text(p)), number(text(p)) + half_unit(text(p))) for p in printed]
    corners = [100 * (a - low) / (high - low) for a, low, high in itertools.product(*around)]
    told, slack = text(f"{attack}/success"), half_unit(text(f"{attack}/success"))
    return min(corners) - slack <= number(told) <= max(corners) + slack


RULES = (same, differ, mean, wrong, difference, known, success)


def told(section: str) -> Iterator[tuple[str, list[str]]]:
    for line in REPEATS[section]:
        yield line, re.sub(r" (within|by)(?= )", "", line).split()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_what_is_printed_again_or_follows_from_other_values_is_as_it_should_be(rule):
    assert REPEATS[rule.__name__]
    assert [line for line, parts in told(rule.__name__) if not rule(*parts)] == []


def test_every_rule_has_its_list():
    assert {rule.__name__ for rule in RULES} == set(REPEATS)


def test_every_printed_attack_success_has_been_recomputed():
    printed = {
        (e, row.id)
        for e in (f"tab-4.{i}" for i in range(1, 7))
        for row in exhibit(e).rows
        if row.values.get("success") is not None
    }
    places = [parts for _, parts in told("success")]
    recomputed = {tuple(p[1].split("/")) if "/" in p[1] else (p[0], p[1]) for p in places}
    assert printed - recomputed == {("tab-4.1", "ats-b-slowformer")}  # which does not follow, as its erratum says
