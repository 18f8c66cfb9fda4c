"""Tables that are arithmetic: printed settings are those of the recipes, sums agree, and so does what is repeated."""

import pytest
import yaml

from effbook.book.site import repository_root
from effbook.exhibits import exhibit
from effbook.exhibits.text import number

TRAININGS = exhibit("tab-A.11").rows
SPLITS = exhibit("tab-A.13").rows
MANIFESTS = {"food101", "cifar10", "cifar100", "sun397", "aircraft", "pets"}  # of the same splits as the table


@pytest.mark.parametrize("row", TRAININGS, ids=lambda row: row.id)
def test_a_trainings_recipe_has_the_settings_that_the_table_prints(row):
    named = {
        "unlabeled-fwd": "unlabeled_forward",
        "unlabeled-bwd": "unlabeled_backward",
        "unlabeled-bs": "unlabeled_batch",
        "labeled-fwd": "labeled_forward",
        "labeled-bwd": "labeled_backward",
        "labeled-bs": "labeled_batch",
        "iterations": "iterations",
        "epochs": "epochs",
    }
    printed = {named[column]: float(value) for column, value in row.values.items() if column in named and value}
    assert {field: value for field, value in row.count.items() if field != "name"} == printed


@pytest.mark.parametrize("row", SPLITS, ids=lambda row: row.id)
def test_training_and_validation_add_up_to_the_official_training_images(row):
    parts = [number(row.values[column]) for column in ("train", "val")]
    official = row.count["images"]
    if "val" in row.count:
        assert parts == [official, row.count["val"]]
    elif "kept_a_class" in row.count:
        assert sum(parts) + number(row.values["test"]) == official
    else:
        assert sum(parts) == official
    assert row.count["classes"] == (102 if row.id == "caltech101" else number(row.values["classes"]))


@pytest.mark.parametrize("name", sorted(MANIFESTS))
def test_official_sizes_are_those_of_our_manifests(name):
    manifest = yaml.safe_load((repository_root() / "data_manifests" / f"{name}.yaml").read_text())
    count = exhibit("tab-A.13").row(name).count
    assert manifest["splits"] == {"train": count["images"], "test": count["test"]}


def test_caltech_101s_images_are_those_of_our_manifest_and_the_background_class():
    splits = yaml.safe_load((repository_root() / "data_manifests" / "caltech101.yaml").read_text())["splits"]
    assert exhibit("tab-A.13").row("caltech101").count["images"] - sum(splits.values()) == 467


@pytest.mark.parametrize("row", ["bits16", "bits32"])
def test_the_shares_of_table_3_6_add_up(row):
    values = {column: number(value) for column, value in exhibit("tab-3.6").row(row).values.items()}
    assert values["kept-values"] + values["quantised-values"] == 59
    assert values["unquantised"] + values["quantised"] == 100
    assert values["index"] + values["codebook"] == 100


def test_the_ratio_4_8_of_the_text_is_that_of_passes_and_not_of_flops():
    paws, ours = (exhibit("tab-A.11").row(row).values for row in ("paws-6720", "cmsf-semi-mix"))
    ratio = {column: number(paws[column]) / number(ours[column]) for column in ("passes", "flops")}
    assert (round(ratio["passes"], 1), ratio["flops"]) == (4.8, 5.25)
