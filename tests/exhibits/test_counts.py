"""Every printed parameter count, counted from our own layers on the real architectures' shapes."""

import pytest

from effbook.errors import EffbookError
from effbook.exhibits import register
from effbook.exhibits.counts import counts, counts_text
from effbook.experiments.nola.count import CountRecipe

# The cells where the text's own number does not fit the shapes, and what the shapes give.
DIFFER = {
    ("tab-3.10", "gpt2-m-finetune"): 354_823_168,
    ("tab-3.10", "gpt2-m-lora-r4"): 393_216,
    ("tab-3.10", "gpt2-l-lora-r4"): 737_280,
    ("tab-3.15", "vit-b-full"): 85_798_656,
    ("tab-3.15", "vit-b-mae-full"): 85_798_656,
    ("tab-3.17", "pranc"): 11_376,
    ("tab-3.17", "lora"): 13_250,
    ("tab-3.18", "pranc"): 109_600,
    ("tab-3.18", "lora"): 150_396,
    ("tab-B.10", "pranc"): 11_376,
    ("tab-B.10", "lora"): 13_250,
    ("tab-B.11", "pranc"): 109_600,
    ("tab-B.11", "lora"): 150_396,
    ("tab-B.13", "gpt2-m-finetune"): 354_823_168,
    ("tab-B.13", "gpt2-l-finetune"): 774_030_080,
    ("tab-B.13", "gpt2-m-lora-r4"): 393_216,
    ("tab-B.13", "gpt2-l-lora-r4"): 737_280,
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
COUNTED = [name for name, found in register().items() if found.reported and any(c.arithmetic for c in found.columns)]


@pytest.mark.slow
@pytest.mark.parametrize("exhibit_id", COUNTED)
def test_every_printed_count_is_reproduced_but_for_the_listed_ones(exhibit_id):
    counted = counts(exhibit_id)
    assert counted
    differ = {(exhibit_id, c.row): c.exact for c in counted if not c.matches}
    assert differ == {place: exact for place, exact in DIFFER.items() if place[0] == exhibit_id}
    exact = {(exhibit_id, c.row): c.exact for c in counted}
    assert {place: exact[place] for place in EXACT if place[0] == exhibit_id} == {
        place: n for place, n in EXACT.items() if place[0] == exhibit_id
    }
    found = register()[exhibit_id]
    column = next(c.id for c in found.columns if c.arithmetic)
    left_out = [row for row in found.rows if row.values.get(column) and (exhibit_id, row.id) not in exact]
    assert all(row.origin == "quoted" for row in left_out)


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


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"model": "vit-b", "target": "all"}, "has no target"),
        ({"model": "bert"}, "no family"),
        ({"model": "vit-b", "rank": 0}, "rank of at least 1"),
        ({"model": "vit-b", "k": 0}, "k of at least 1"),
    ],
)
def test_what_cannot_be_counted_is_refused(wrong, sentence):
    with pytest.raises(EffbookError, match=sentence):
        CountRecipe(**wrong)
