"""Recipes: their types, their keys, and how they are made from a register's words."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import pytest
from tiny_recipe import Tiny

from effbook.errors import EffbookError
from effbook.runs.recipe import Recipe, key_of, make, recipe_class, register_recipe


def test_the_key_is_pinned_so_that_records_stay_found():
    # sha256sum of {"data":{"digits":"ab"},"fields":{"rate":0.1,"seed":0},"name":"tiny"}
    assert key_of("tiny", {"rate": 0.1, "seed": 0}, {"digits": "ab"}) == "b40f514304a9"


def test_the_key_comes_from_name_fields_and_data():
    fields = {"rate": 0.1, "seed": 0}
    keys = {
        key_of("tiny", fields, {}),
        key_of("other", fields, {}),
        key_of("tiny", {**fields, "seed": 1}, {}),
        key_of("tiny", fields, {"digits": "ab"}),
        key_of("tiny", fields, {"digits": "cd"}),
    }
    assert len(keys) == 5
    assert key_of("tiny", {"seed": 0, "rate": 0.1}, {}) == key_of("tiny", fields, {})


def test_a_recipe_that_reads_data_has_the_manifests_digest_in_its_key(monkeypatch):
    from effbook import data

    class Reading(Tiny):
        def datasets(self):
            return ("digits",)

    monkeypatch.setattr(data, "digest", lambda name: f"sha of {name}")
    assert Reading().digests == {"digits": "sha of digits"}
    assert Reading().key == key_of("tiny", Reading().fields, {"digits": "sha of digits"}) != Tiny().key


def test_equal_fields_make_equal_recipes_and_keys():
    assert Tiny(rate=1) == Tiny(rate=1.0)
    assert Tiny(rate=1).key == Tiny(rate=1.0).key
    assert make("tiny", shape=[2, 3]) == Tiny(shape=(2, 3))
    assert dataclasses.replace(Tiny(), seed=1).key != Tiny().key


def test_the_fields_make_the_recipe_again():
    recipe = Tiny(seed=3, rate=0.5, shape=(7,))
    assert make("tiny", **recipe.fields) == recipe


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rte": 1}, ["rte", "did you mean rate"]),
        ({"zzz": 1}, ["zzz", "known are"]),
        ({"rate": "fast"}, ["rate = 'fast'", "valid number"]),
        ({"steps": 2.5}, ["steps = 2.5"]),
        ({"steps": True}, ["steps = True"]),
        ({"steps": "3"}, ["steps = '3'"]),
        ({"steps": 0}, ["steps is 0", "choose steps above 0"]),
        ({"method": "adm"}, ["method = 'adm'", "'sgd' or 'adam'"]),
        ({"rate": float("nan")}, ["rate = nan", "not finite"]),
        ({"rate": float("inf")}, ["rate = inf", "not finite"]),
        ({"seed": -1}, ["seed is -1", "choose seed of at least 0"]),
        ({"seed": 10**23}, ["seed is 1", "choose seed below 4294967296"]),
        ({"shape": (1, 0)}, ["shape is (1, 0)", "above 0"]),
        ({"shape": [1, "a"]}, ["shape"]),
    ],
)
def test_an_unknown_mistyped_or_impossible_field_is_told_in_one_sentence(fields, words):
    with pytest.raises(EffbookError) as caught:
        make("tiny", **fields)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe_is_told_with_near_names():
    with pytest.raises(EffbookError, match="did you mean tiny"):
        recipe_class("tyny")


def test_a_field_without_default_must_be_given():
    @register_recipe
    @dataclass(frozen=True, kw_only=True)
    class Demanding(Recipe):
        system: ClassVar[str] = "nola"
        name: ClassVar[str] = "tiny-demanding"
        rank: int

    with pytest.raises(EffbookError, match="lacks rank"):
        make("tiny-demanding")
    assert make("tiny-demanding", rank=2).rank == 2


def test_a_name_belongs_to_one_class():
    class Thief(Tiny):
        pass

    with pytest.raises(EffbookError, match="two recipes are named tiny"):
        register_recipe(Thief)
    assert recipe_class("tiny") is Tiny
