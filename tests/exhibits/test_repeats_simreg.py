"""Section 2.2 and appendix A.2: values that are repeated or follow from others in the dissertation, and that do not."""

import pytest

from effbook.exhibits import exhibit

SETS = ("food", "cifar10", "cifar100", "sun", "cars", "aircraft", "dtd", "pets", "caltech", "flowers")


def cell(exhibit_id, row, column):
    return exhibit(exhibit_id).row(row).values[column]


def half_unit(text):
    return 0.5 * 10.0 ** -len(text.partition(".")[2])


def same_to_rounding(one, other):
    return abs(float(one) - float(other)) <= max(half_unit(one), half_unit(other)) + 1e-9


def difference(one, other):
    return round(float(one) - float(other), 4)


def says(exhibit_id, *words):
    return any(all(word in e.text for word in words) for e in exhibit(exhibit_id).errata)


@pytest.mark.parametrize("row", [row.id for row in exhibit("tab-2.11").rows])
def test_the_mean_of_a_row_is_the_mean_of_its_ten_data_sets(row):
    values = exhibit("tab-2.11").row(row).values
    assert set(values) == {*SETS, "mean"}
    mean = sum(float(values[name]) for name in SETS) / len(SETS)
    assert abs(mean - float(values["mean"])) <= half_unit(values["mean"]) + 1e-9


REPEATS = [
    *[(("tab-2.11", r, c), ("tab-A.16", r, c)) for r in ("mbv2-compress-2q-4l", "mbv2-simreg-4l") for c in SETS],
    *[(("tab-2.11", r, c), ("tab-A.16", r, c)) for r in ("r18-compress-2q-4l", "r18-simreg-4l") for c in SETS],
    *[
        (("tab-2.15", f"supervised-mbv2-{head}", c), ("tab-A.14", f"supervised-mbv2-{head}", c))
        for head in ("4l", "2l", "linear")
        for c in ("nn1", "nn20", "linear")
    ],
    *[
        (("tab-2.8", f"r18-{one}", "nn1"), ("tab-A.17", other, "nn1"))
        for one, other in (("backbone", "resblk-4"), ("2l", "2l-mlp"), ("4l", "4l-mlp"))
    ],
    *[(("tab-2.9", "simreg-4l", f"r18-{c}"), ("tab-A.14", "moco-r18-4l", c)) for c in ("nn1", "linear")],
    *[(("tab-2.9", "simreg-4l", f"mbv2-{c}"), ("tab-A.14", "moco-mbv2-4l", c)) for c in ("nn1", "linear")],
    *[(("tab-2.13", "same-weak", c), ("tab-A.14", "moco-r18-4l", c)) for c in ("nn1", "nn20", "linear")],
    (("tab-2.13", "same-weak", "transfer"), ("tab-2.11", "r18-simreg-4l", "mean")),
    *[(("tab-2.9", "teacher", f"{student}-nn1"), ("tab-A.15", "teacher", "nn1")) for student in ("mbv2", "r18")],
    *[(("tab-2.9", "teacher", f"{student}-linear"), ("tab-A.15", "teacher", "linear")) for student in ("mbv2", "r18")],
    (("tab-2.11", "r50-teacher", "mean"), ("tab-A.15", "teacher", "transfer")),
]


@pytest.mark.parametrize(("first", "again"), REPEATS)
def test_a_run_that_is_printed_again_has_the_same_value_to_rounding(first, again):
    assert same_to_rounding(cell(*first), cell(*again))


@pytest.mark.parametrize(
    ("better", "worse", "points"),
    [
        (("tab-A.14", "moco-r18-4l", "linear"), ("tab-A.14", "moco-r18-linear", "linear"), 5.0),
        (("tab-A.14", "moco-mbv2-4l", "linear"), ("tab-A.14", "moco-mbv2-linear", "linear"), 11.2),
        (("tab-A.14", "supervised-mbv2-4l", "linear"), ("tab-A.14", "supervised-mbv2-linear", "linear"), 6.0),
        (("tab-2.9", "simreg-4l", "mbv2-linear"), ("tab-2.9", "compress-1q", "mbv2-linear"), 3.3),
        (("tab-2.9", "simreg-4l", "r18-linear"), ("tab-2.9", "compress-1q", "r18-linear"), 2.5),
        (("tab-2.9", "simreg-4l", "r50-linear"), ("tab-2.9", "compress-1q", "r50-linear"), 2.3),
        (("tab-2.9", "teacher", "mbv2-linear"), ("tab-2.9", "simreg-4l", "mbv2-linear"), 1.7),
        (("tab-2.9", "teacher", "r50-linear"), ("tab-2.9", "simreg-4l", "r50-linear"), 1.4),
        (("tab-A.15", "r50-4l", "transfer"), ("tab-A.15", "teacher", "transfer"), 4.0),
    ],
)
def test_a_difference_that_the_prose_names_follows_from_its_table(better, worse, points):
    assert difference(cell(*better), cell(*worse)) == points


def test_compress_1q_is_the_best_earlier_method_on_linear_evaluation():
    quoted = [row.id for row in exhibit("tab-2.9").rows if row.origin == "quoted"]
    methods = [row for row in quoted if row not in ("teacher", "supervised")]
    for column in ("mbv2-linear", "r18-linear", "r50-linear"):
        printed = {row: cell("tab-2.9", row, column) for row in methods}
        assert max((float(v), row) for row, v in printed.items() if v)[1] == "compress-1q"


def test_resnet_50_beats_simclr_from_scratch_by_as_much_as_the_prose_says():
    assert difference(cell("tab-2.9", "simreg-4l", "r50-linear"), "69.3") == 4.9


def test_the_wider_head_is_the_one_of_65_7_and_the_other_stands_in_table_2_9():
    assert cell("tab-2.8", "r18-backbone", "linear") == "65.7"
    assert cell("tab-2.9", "simreg-4l", "r18-linear") == "65.1"
    assert "65.1" not in {v for row in exhibit("tab-2.10").rows for v in row.values.values()}
    assert says("tab-2.8", "table 4", "65.1")


def test_an_mlp_head_does_not_always_improve_compress():
    falls = {
        (variant, column)
        for variant in ("compress-2q", "compress-1q")
        for column in exhibit("tab-2.9").row(variant).values
        if difference(cell("tab-2.9", f"{variant}-4l", column), cell("tab-2.9", variant, column)) <= 0
    }
    assert falls == {("compress-2q", "r50-nn1"), ("compress-1q", "r50-nn1")}
    assert says("tab-2.9", "consistently improves", "62.5", "60.9")
    assert exhibit("tab-2.9").claim("mlp-always-improves-compress").disputed


def test_simreg_is_not_comparable_on_all_settings_and_metrics():
    below = [
        column
        for column, ours in exhibit("tab-2.9").row("simreg-4l").values.items()
        if difference(ours, cell("tab-2.9", "compress-2q-4l", column)) < -1
    ]
    assert below == ["r50-nn1"]
    assert says("tab-2.9", "on all settings and metrics", "60.3", "62.5")


def test_four_layers_are_not_always_best():
    two, four = (exhibit("tab-A.14").row(f"supervised-mbv2-{head}").values for head in ("2l", "4l"))
    better = [column for column in ("nn1", "nn20", "linear") if float(two[column]) > float(four[column])]
    assert better == ["nn1", "nn20"]
    assert says("tab-A.14", "consistently", "64.7", "63.77")


def test_the_distance_from_the_teacher_is_no_mean_over_dimensions():
    printed = [row.values["mse"] for e in ("tab-2.7", "tab-2.8") for row in exhibit(e).rows]
    most = 4 / int(cell("prose-A.2.2.5", "r50", "d"))  # two vectors of length one, opposite to each other
    assert all(most < float(v) < 4 for v in printed if v is not None)
    assert says("tab-2.7", "mean squared error", "2048")


def test_the_three_pairs_and_all_three_teachers_are_there_once():
    teachers = [
        tuple(name for name in ("moco", "byol", "swav") if row.values[name]) for row in exhibit("tab-2.14").rows
    ]
    assert teachers == [("moco", "byol"), ("moco", "swav"), ("byol", "swav"), ("moco", "byol", "swav")]


@pytest.mark.parametrize(
    ("exhibit_id", "words"),
    [
        ("fig-2.7", ("Eq. 2.2", "minus")),
        ("fig-2.7", ("unit mean and zero variance",)),
        ("fig-2.7", ("[37]", "[38]")),
        ("fig-2.7", ("2.2.3.2", "A.2.2.5")),
        ("tab-2.11", ("CompRess-1q is above it on nine",)),
        ("tab-2.11", ("Table 2.2", "74.2", "71.1")),
        ("tab-2.15", ("2 layers", "64.7")),
        ("tab-A.15", ("shallower",)),
        ("tab-A.16", ("table 1 of the main paper",)),
    ],
)
def test_what_contradicts_itself_has_an_erratum(exhibit_id, words):
    assert says(exhibit_id, *words)
