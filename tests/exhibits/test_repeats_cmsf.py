"""Section 2.1 and appendix A.1: values that the dissertation repeats or that follow from others, or do not."""

import statistics

import pytest

from effbook.exhibits import exhibit, recipe_of
from effbook.exhibits.plots import number

TRANSFER = ("food", "cifar10", "cifar100", "sun", "cars", "aircraft", "dtd", "pets", "caltech", "flowers")


def cell(exhibit_id, row, column):
    return exhibit(exhibit_id).row(row).values[column]


def says(exhibit_id, *words):
    return any(all(word in e.text for word in words) for e in exhibit(exhibit_id).errata)


@pytest.mark.parametrize(("exhibit_id", "row"), [(i, r.id) for i in ("tab-2.2", "tab-A.12") for r in exhibit(i).rows])
def test_the_mean_over_ten_data_sets_is_that_of_the_row(exhibit_id, row):
    mean = statistics.fmean(number(cell(exhibit_id, row, name)) for name in TRANSFER)
    assert abs(mean - number(cell(exhibit_id, row, "mean"))) <= 0.0501


def test_the_appendix_repeats_the_table_of_coarse_labels():
    for row in exhibit("tab-2.5").rows:
        assert row.values == exhibit("tab-A.9").row(row.id).values
    assert [row.id for row in exhibit("tab-A.9").rows if row.id not in {r.id for r in exhibit("tab-2.5").rows}] == [
        "cmsf-1000"
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("tab-2.2", "cmsf-sup-10", "linear"), ("tab-2.5", "cmsf-10", "fine")),
        (("tab-2.2", "cmsf-sup-all", "linear"), ("tab-2.5", "cmsf-all", "fine")),
        (("tab-2.2", "supcon-200", "linear"), ("tab-2.5", "supcon", "fine")),
        (("tab-2.2", "xent-200", "linear"), ("tab-2.5", "xent", "fine")),
        (("tab-2.2", "cmsf-sup-10", "mean"), ("tab-A.10", "m128-top10", "mean")),
        (("tab-2.2", "cmsf-sup-10", "linear"), ("tab-A.10", "m128-top10", "linear")),
        (("tab-2.2", "cmsf-sup-all", "mean"), ("tab-A.10", "m128-all", "mean")),
        (("tab-2.2", "cmsf-sup-all", "linear"), ("tab-A.10", "m128-all", "linear")),
        (("tab-2.2", "supcon-200", "mean"), ("tab-A.10", "supcon-128k", "mean")),
        (("tab-2.2", "supcon-200", "linear"), ("tab-A.10", "supcon-128k", "linear")),
        (("tab-2.2", "xent-90", "mean"), ("tab-A.10", "xent-010-step-90-std", "mean")),
        (("tab-2.2", "xent-90", "linear"), ("tab-A.10", "xent-010-step-90-std", "linear")),
        (("tab-2.2", "byol-asym", "mean"), ("tab-A.10", "top1", "mean")),
        (("tab-2.2", "byol-asym", "linear"), ("tab-A.10", "top1", "linear")),
        (("tab-A.10", "m128-top10", "mean"), ("tab-A.10", "target-in", "mean")),
        (("tab-2.2", "cmsf-self", "linear"), ("tab-A.3", "cmsf-self", "r50")),
        (("tab-2.1", "cmsf-self", "linear"), ("tab-A.3", "cmsf-self", "r50")),
        (("tab-A.1", "cmsf-5", "nn1"), ("tab-A.2", "k5", "nn1")),
        (("tab-A.1", "cmsf-5", "nn20"), ("tab-A.2", "k5", "nn20")),
        (("tab-A.5", "t0", "top1"), ("tab-A.6", "offline", "top1")),
        (("tab-A.5", "t0", "nn1"), ("tab-A.7", "mlp2", "nn1")),
        (("tab-A.6", "offline", "nn20"), ("tab-A.7", "mlp2", "nn20")),
        (("tab-2.4", "byol-tuned", "top1-10"), ("tab-2.6", "byol", "top1")),
        (("tab-2.4", "swav", "top1-10"), ("tab-2.6", "swav", "top1")),
    ],
    ids=lambda part: "/".join(part),
)
def test_a_repeated_value_is_the_same(one, other):
    assert cell(*one) == cell(*other)


def test_values_that_do_not_agree_are_errata():
    assert cell("tab-2.2", "msf", "linear") != cell("tab-A.3", "msf", "r50")
    assert says("tab-A.3", "72.2", "72.1")
    assert cell("tab-2.4", "msf", "top1-10") != cell("tab-2.6", "mean-shift", "top1")
    assert says("tab-2.4", "66.5", "67.4")
    assert (cell("tab-2.2", "xent-200", "mean"), cell("tab-2.2", "xent-200", "linear")) not in [
        (row.values["mean"], row.values["linear"]) for row in exhibit("tab-A.10").rows
    ]
    assert says("tab-2.2", "77.2", "71.5")
    assert says("tab-A.10", "71.0 and 77.2")
    assert number(cell("tab-A.8", "full", "top1")) > number(cell("tab-2.6", "cmsf-semi-mix", "top1")) + 5
    assert says("tab-A.8", "76.9")
    assert says("tab-2.6", "Table A.8")


def test_gains_that_the_prose_gives_follow_or_are_errata():
    gain = number(cell("tab-2.2", "cmsf-self", "mean")) - number(cell("tab-2.2", "msf", "mean"))
    assert round(gain, 1) == 1.1  # the caption says 1.2
    assert says("tab-2.2", "1.2 points over MSF")
    gap = number(cell("tab-2.6", "cmsf-semi-mix", "top1")) - number(cell("tab-2.6", "paws-400", "top1"))
    assert round(gap, 1) == 7.6
    for backbone, points in (("r18", 1.9), ("r101", 0.8)):
        ours, theirs = cell("tab-A.3", "cmsf-self", backbone), cell("tab-A.3", "msf", backbone)
        assert round(number(ours) - number(theirs), 1) == points


@pytest.mark.parametrize("row", [row.id for row in exhibit("tab-2.6").rows if row.id != "simclrv2-distilled"])
def test_flops_are_those_of_table_a11(row):
    assert cell("tab-2.6", row, "flops") == cell("tab-A.11", row, "flops")
    theirs = exhibit("tab-A.11")
    if exhibit("tab-2.6").row(row).count:
        ours = recipe_of(exhibit("tab-2.6"), exhibit("tab-2.6").row(row), exhibit("tab-2.6").column("flops"))
        assert ours == recipe_of(theirs, theirs.row(row), theirs.column("flops"))
