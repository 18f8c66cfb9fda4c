"""Every printed value that follows from settings alone: parameter counts, FLOPs, sizes of splits and of scenes."""

import pytest

from effbook.errors import EffbookError
from effbook.exhibits import register
from effbook.exhibits.counts import counts, counts_text
from effbook.experiments.nola.count import CountRecipe

# The cells where the text's own number does not follow, and what does: from the shapes, or by Eq. A.1.
DIFFER = {
    ("tab-3.10", "gpt2-m-finetune", "trainable"): 354_823_168,
    ("tab-3.10", "gpt2-m-lora-r4", "trainable"): 393_216,
    ("tab-3.10", "gpt2-l-lora-r4", "trainable"): 737_280,
    ("tab-3.15", "vit-b-full", "trainable"): 85_798_656,
    ("tab-3.15", "vit-b-mae-full", "trainable"): 85_798_656,
    ("tab-3.17", "pranc", "trainable"): 11_376,
    ("tab-3.17", "lora", "trainable"): 13_250,
    ("tab-3.18", "pranc", "trainable"): 109_600,
    ("tab-3.18", "lora", "trainable"): 150_396,
    ("tab-B.10", "pranc", "trainable"): 11_376,
    ("tab-B.10", "lora", "trainable"): 13_250,
    ("tab-B.11", "pranc", "trainable"): 109_600,
    ("tab-B.11", "lora", "trainable"): 150_396,
    ("tab-B.13", "gpt2-m-finetune", "trainable"): 354_823_168,
    ("tab-B.13", "gpt2-l-finetune", "trainable"): 774_030_080,
    ("tab-B.13", "gpt2-m-lora-r4", "trainable"): 393_216,
    ("tab-B.13", "gpt2-l-lora-r4", "trainable"): 737_280,
    ("tab-3.1", "compgs-16k", "mip-mem"): 18.778,
    ("tab-B.2", "compgs-16k", "mem"): 12.744,
    ("fig-B.3", "3dgs", "size"): 11.91,
    ("fig-B.3", "no-sh", "size"): 2.826,
    ("tab-A.11", "simclrv2", "flops"): 23.923,
    ("tab-A.11", "mpl", "flops"): 29.453,
    ("tab-A.11", "paws-6720", "passes"): 36.350,
    ("tab-A.11", "paws-1680", "flops"): 14.482,
    ("tab-A.11", "paws-400", "passes"): 11.946,
}
EXACT = {
    ("tab-3.10", "gpt2-m-nola-qv-96k"): 24 * 2 * 2 * 1000,
    ("tab-3.10", "gpt2-l-nola-mlp-36k"): 36 * 2 * 2 * 250,
    ("tab-3.10", "gpt2-l-lora-r1"): 36 * 2 * (1280 + 1280),
    ("tab-3.14", "7b-nola"): 57_344,
    ("tab-3.14", "13b-nola"): 143_360,
    ("tab-3.14", "70b-nola"): 573_440,
    ("tab-3.14", "70b-lora"): 80 * (2 * 2 * 8192 + 2 * (8192 + 1024) + 3 * (8192 + 28672)),
    ("tab-3.15", "vit-b-lora-r4"): 12 * 2 * 4 * (768 + 768),
    ("tab-3.15", "vit-b-nola-mlp-47k"): 49_152,
    ("tab-3.15", "vit-l-nola-mlp-94k"): 98_304,
    ("tab-3.17", "trained"): 269_722,
    ("tab-3.17", "nola"): 19 * 500 + 2000 + 1376,
    ("tab-3.18", "trained"): 11_227_812,
    ("tab-3.18", "nola"): 109_600,
}
# Cells whose value does not follow from what the text says; their notes tell why.
NO_RULE = {("tab-A.13", "cars", "train"), ("tab-A.13", "cars", "val")}
COUNTED = [name for name, found in register().items() if found.reported and any(c.arithmetic for c in found.columns)]


@pytest.mark.slow
@pytest.mark.parametrize("exhibit_id", COUNTED)
def test_every_printed_count_is_reproduced_but_for_the_listed_ones(exhibit_id):
    counted = counts(exhibit_id)
    assert counted
    exact = {(exhibit_id, c.row, c.column): c.exact for c in counted}
    differ = {(exhibit_id, c.row, c.column): round(c.exact, 3) for c in counted if not c.matches}
    assert differ == {place: value for place, value in DIFFER.items() if place[0] == exhibit_id}
    trainable = {place[:2]: value for place, value in exact.items() if place[2] == "trainable"}
    wanted = {place: value for place, value in EXACT.items() if place[0] == exhibit_id}
    assert {place: trainable[place] for place in wanted} == wanted
    found = register()[exhibit_id]
    left_out = {
        (exhibit_id, row.id, column.id)
        for row in found.rows
        for column in found.columns
        if column.arithmetic and row.values.get(column.id) and (exhibit_id, row.id, column.id) not in exact
    }
    assert {place for place in left_out if found.row(place[1]).origin != "quoted"} == {
        place for place in NO_RULE if place[0] == exhibit_id
    }


def test_pranc_printed_count_holds_batch_norms_running_statistics_too():
    cifar = {"model": "resnet20-cifar10", "method": "pranc", "k": 250, "k_classifier": 250}
    assert sum(CountRecipe(**cifar).count()) == 12_752
    imagenet = {"model": "resnet18-imagenet100", "method": "pranc", "k": 2000, "k_classifier": 10_000}
    assert sum(CountRecipe(**imagenet).count()) == 119_200


def test_lora_on_key_too_would_not_print_as_141k():
    with_key = CountRecipe(model="vit-b", method="lora", target="qkv", rank=4).count()[0]
    assert with_key == 12 * 3 * 4 * (768 + 768)
    assert round(with_key / 2**20 * 1000) == 211


def test_the_printed_full_count_of_vit_b_is_that_of_a_tiny_one():
    import timm

    tiny = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    assert f"{sum(p.numel() for p in tiny.parameters()) / 2**20:.1f}M" == "5.3M"


@pytest.mark.parametrize("rank", [1, 8, 64])
def test_nolas_count_is_free_of_the_rank(rank):
    assert CountRecipe(model="vit-s14", target="mlp", rank=rank, k=100).count()[0] == 12 * 2 * 2 * 100


def test_counts_as_text_are_one_line_a_row():
    text = counts_text("tab-3.17").splitlines()
    assert text[0].split() == ["tab-3.17", "printed", "counted"]
    assert text[-1].split() == ["NOLA", "12,876", "12,876", "matches"]
    assert text[2].split() == ["PRANC", "12,752", "11,376", "differs"]


def test_arithmetic_of_several_columns_is_one_line_a_cell_in_full_or_to_four_digits():
    text = [line.split("  ") for line in counts_text("tab-A.11").splitlines()]
    lines = {line[0]: [part.strip() for part in line[1:] if part.strip()] for line in text}
    assert lines["SwAV, Mini-batch"] == ["25395", "25,395", "matches"]
    assert lines["BYOL, Total passes"] == ["76.7", "76.68", "matches"]
    assert lines["SimCLRv2, FLOPs"] == ["16", "23.92", "differs"]
    assert len(lines) == 1 + 13 * 3


def test_all_shares_of_table_3_6_and_all_splits_with_a_rule_are_as_printed():
    assert [c.printed for c in counts("tab-3.6") if c.matches] == ["68", "32", "99", "1", "81", "19", "98", "2"]
    assert all(c.matches for c in counts("tab-A.13"))
    assert len(counts("tab-A.13")) == 10 * 3 - 2


def test_cells_without_arithmetic_say_why():
    cars = register()["tab-A.13"].row("cars")
    assert set(cars.notes) == {"train", "val", "provided"}
    assert "size of each class" in " ".join(cars.notes["val"].split())


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"model": "vit-b", "target": "all"}, "has no target"),
        ({"model": "bert"}, "no family"),
        ({"model": "vit-b", "rank": 0}, "choose rank above 0"),
        ({"model": "vit-b", "k": 0}, "choose k above 0"),
    ],
)
def test_what_cannot_be_counted_is_refused(wrong, sentence):
    with pytest.raises(EffbookError, match=sentence):
        CountRecipe(**wrong)
