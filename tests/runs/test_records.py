"""Records are read back with suspicion."""

import json

import pytest
from tiny_recipe import Tiny

from effbook.errors import EffbookError
from effbook.runs import records
from effbook.runs.execute import execute


@pytest.fixture
def content(folders):
    execute(Tiny(), profile="smoke", quiet=True)
    path = records.path_of(Tiny(), "smoke")
    return path, json.loads(path.read_text())


def _changed(content, *keys, to):
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    return content


@pytest.mark.parametrize(
    ("keys", "to", "words"),
    [
        (("schema_version",), 99, "schema version 99, not 1"),
        (("metrics", "loss"), "low", "metrics.loss"),
        (("surprise",), 1, "surprise"),
        (("recipe", "fields", "rate"), 0.2, "key does not fit"),
        (("profile",), "paper", "does not belong under that name"),
        (("cost",), {}, "wall_seconds"),
    ],
)
def test_a_record_that_was_tampered_with_is_told_with_its_file(content, keys, to, words):
    path, found = content
    path.write_text(json.dumps(_changed(found, *keys, to=to)))
    with pytest.raises(EffbookError) as caught:
        records.find(Tiny(), "smoke")
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "--fresh" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": NaN}', "\x00"])
def test_a_record_that_is_no_strict_json_is_told_with_its_file(content, text):
    path, _ = content
    path.write_text(text)
    with pytest.raises(EffbookError, match=path.name):
        records.all_records("smoke")


def test_a_record_is_strict_sorted_json_that_a_diff_can_show(content):
    path, found = content
    assert path.read_text() == json.dumps(found, indent=1, sort_keys=True, allow_nan=False) + "\n"


def test_an_artifact_that_was_changed_is_told(content):
    record = records.find(Tiny(), "smoke")
    file = record.artifact("picture")
    assert file.is_relative_to(records.records_folder())
    file.write_text("other")
    with pytest.raises(EffbookError, match="missing or changed"):
        record.artifact("picture")
    with pytest.raises(EffbookError, match="no artifact 'film'"):
        record.artifact("film")


def test_all_records_are_those_of_the_profile(content):
    assert [record.key for record in records.all_records("smoke")] == [Tiny().key]
    assert records.all_records("paper") == []
