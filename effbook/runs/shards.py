"""Runs shared out among machines that do not know of each other: each works out the same shards, and does its own.

What is recorded has no part in it: the machines may not see the same records, and these grow while they work.
"""

import json
import re
from collections.abc import Sequence

from effbook.errors import EffbookError
from effbook.runs.recipe import Recipe
from effbook.runs.slots import Demand, demand

Pair = tuple[Recipe, str]  # a recipe and the profile that it runs under


def parse(text: str) -> tuple[int, int]:
    """(2, 8) of "2/8"; EffbookError for what is no shard."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise EffbookError(f"--shard {text} is no shard", "give one such as 2/8: from 1/8 to 8/8")
    return int(match[1]), int(match[2])


def shards(pairs: Sequence[Pair], count: int) -> list[list[Pair]]:
    """`count` lists of runs of about the same cost; some may be empty.

    Runs of different needs are in different shards, if there are enough of these; runs that share work, or of which one
    takes the other's record, are in the same.
    """
    kinds: dict[tuple[str, ...], list[list[Pair]]] = {}
    for unit in units(pairs):
        kinds.setdefault(_need(unit), []).append(unit)
    groups = [kinds[need] for need in sorted(kinds, key=lambda need: (_size(kinds[need]), need))]
    cost = {id(unit): seconds_of(unit) for group in groups for unit in group}

    def total(group: list[list[Pair]]) -> float:
        return sum(cost[id(unit)] for unit in group)

    while len(groups) > count:  # neighbours need about the same
        i = min(range(len(groups) - 1), key=lambda i: total(groups[i]) + total(groups[i + 1]))
        groups[i : i + 2] = [groups[i] + groups[i + 1]]
    parts = [1] * len(groups)
    for _ in range(count - len(groups) if groups else 0):
        i = max(range(len(groups)), key=lambda i: total(groups[i]) / parts[i])
        parts[i] += 1
    place = {pair: i for i, pair in enumerate(pairs)}
    found: list[list[Pair]] = []
    for group, part in zip(groups, parts, strict=True):
        loads, own = [0.0] * part, [[] for _ in range(part)]
        for unit in sorted(group, key=lambda unit: -cost[id(unit)]):  # the largest first, each where least is to do
            least = loads.index(min(loads))
            loads[least] += cost[id(unit)]
            own[least] += unit
        found += [sorted(one, key=place.__getitem__) for one in own]
    return found + [[] for _ in range(count - len(found))]


def units(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """The runs in groups that one machine should do: of what they share and depend on, in the order given."""
    leader: dict[object, object] = {}

    def led(one: object) -> object:
        while leader.setdefault(one, one) != one:
            leader[one] = leader[leader[one]]
            one = leader[one]
        return one

    for pair in pairs:
        for other in _ties(pair):
            leader[led(other)] = led(pair)
    found: dict[object, list[Pair]] = {}
    for pair in dict.fromkeys(pairs):
        found.setdefault(led(pair), []).append(pair)
    return list(found.values())


def seconds_of(unit: Sequence[Pair]) -> float:
    """The estimate of runs one after another, what they share counted once; nothing recorded or kept."""
    seen, seconds = set(), 0.0
    for recipe, _ in unit:
        seconds += recipe.cost().seconds
        for shared in recipe.shares():
            part = shared.kind, _canonical(shared.parts)
            seconds -= shared.seconds if part in seen else 0.0
            seen.add(part)
    return max(seconds, 0.0)


def largest(runs: Sequence[Pair]) -> Demand:
    """What a machine must offer that is to do each of these runs."""
    wants = [demand(recipe) for recipe, _ in runs]
    return Demand(
        processes=max((one.processes for one in wants), default=1),
        memory_bytes=max((one.memory_bytes for one in wants), default=0),
        gpus=max((one.gpus for one in wants), default=0),
        gpu_bytes=max((one.gpu_bytes or 0 for one in wants if one.gpus), default=0),
    )


def _ties(pair: Pair) -> list[object]:
    recipe, profile = pair
    shared = [(one.kind, _canonical(one.parts)) for one in recipe.shares()]
    return [*shared, *((other, profile) for other in recipe.depends())]


def _need(unit: list[Pair]) -> tuple[str, ...]:
    return tuple(sorted({need for recipe, _ in unit for need in recipe.needs()}))


def _size(group: list[list[Pair]]) -> tuple[int, int, int]:
    wants = largest([pair for unit in group for pair in unit])
    return wants.gpus, wants.gpu_bytes or 0, wants.memory_bytes


def _canonical(parts: dict[str, object]) -> str:
    return json.dumps(parts, sort_keys=True, separators=(",", ":"))
