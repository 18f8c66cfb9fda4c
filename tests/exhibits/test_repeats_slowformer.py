"""Section 4.1 and appendix C: values that are repeated or follow from others in the dissertation, and that do not."""

import itertools

import pytest

from effbook.exhibits import exhibit

BOUND = {"ViT-Tiny": 1.2584, "ViT-Small": 4.6083, "ViT-Base": 17.583}  # GFLOPs unrounded, as the released code counts


def cell(exhibit_id, row, column):
    return exhibit(exhibit_id).row(row).values[column]


def half_unit(text):
    return 0.5 * 10.0 ** -len(text.partition(".")[2])


def attack_success(attack, least, most, *, exact_most=None):
    """Lowest and highest Attack Success, in percent, that the printed GFLOPs allow within their rounding."""
    around = [(float(t) - half_unit(t), float(t) + half_unit(t)) for t in (attack, least, most)]
    if exact_most is not None:
        around[2] = (exact_most, exact_most)
    corners = [100 * (a - low) / (high - low) for a, low, high in itertools.product(*around)]
    return min(corners), max(corners)


def follows(printed, allowed):
    slack = half_unit(printed)
    return allowed[0] - slack <= float(printed) <= allowed[1] + slack


def same_to_rounding(one, other):
    return abs(float(one) - float(other)) <= max(half_unit(one), half_unit(other)) + 1e-9


def says(exhibit_id, *words):
    return any(all(word in e.text for word in words) for e in exhibit(exhibit_id).errata)


BLOCKS = ("avit-ti", "avit-s", "ats-ti", "ats-s", "ats-b", "adavit-s")
SUCCESSES = [
    *[
        ("tab-4.1", f"{block}-{attack}", f"{block}-none", f"{block}-full")
        for block in BLOCKS
        for attack in ("random", "tap", "ntap", "slowformer")
        if (block, attack) != ("ats-b", "slowformer")
    ],
    ("tab-4.2", "avit-ti-slowformer", "avit-ti-none", "avit-ti-full"),
    ("tab-4.2", "ats-ti-slowformer", "ats-ti-none", "avit-ti-full"),
    *[("tab-4.3", row, "none", "full") for row in ("agnostic", "preserve", "destroy")],
    *[("tab-4.4", f"{b}-{side}", f"{b}-none", f"{b}-full") for b in ("ti", "s") for side in (64, 48, 32, 16)],
    *[
        ("tab-4.5", f"{block}-{epsilon}", f"{block}-none", f"{block.split('-')[1]}-full")
        for block in ("avit-ti", "ats-ti", "avit-s", "ats-s", "adavit-s")
        for epsilon in (16, 32)
    ],
]


@pytest.mark.parametrize(("exhibit_id", "attack", "none", "full"), SUCCESSES)
def test_attack_success_follows_from_the_printed_gflops(exhibit_id, attack, none, full):
    allowed = attack_success(*(cell(exhibit_id, row, "gflops") for row in (attack, none, full)))
    assert follows(cell(exhibit_id, attack, "success"), allowed)


def test_every_printed_attack_success_has_been_recomputed():
    printed = {
        (e, row.id)
        for e in (f"tab-4.{i}" for i in range(1, 7))
        for row in exhibit(e).rows
        if row.values.get("success") is not None
    }
    apart = {("tab-4.1", "ats-b-slowformer"), ("tab-4.6", "slowformer"), ("tab-4.6", "defended")}
    assert printed == {(e, attack) for e, attack, _, _ in SUCCESSES} | apart


def test_attack_success_of_the_defence_follows_with_the_bounds_of_table_4_4():
    none, full = cell("tab-4.4", "ti-none", "gflops"), cell("tab-4.4", "ti-full", "gflops")
    for row in ("slowformer", "defended"):
        allowed = attack_success(cell("tab-4.6", row, "gflops"), none, full)
        assert follows(cell("tab-4.6", row, "success"), allowed)


def test_attack_success_on_ats_with_vit_base_does_not_follow():
    gflops = [cell("tab-4.1", f"ats-b-{row}", "gflops") for row in ("slowformer", "none", "full")]
    assert not follows(cell("tab-4.1", "ats-b-slowformer", "success"), attack_success(*gflops))
    assert says("tab-4.1", "ViT-Base", "52 %", "56 %")


def test_ntap_on_ats_with_vit_tiny_needs_the_rounded_maximum():
    gflops = [cell("tab-4.1", f"ats-ti-{row}", "gflops") for row in ("ntap", "none", "full")]
    exact = attack_success(*gflops, exact_most=BOUND["ViT-Tiny"])
    assert not follows(cell("tab-4.1", "ats-ti-ntap", "success"), exact)
    assert says("tab-4.1", "different digits", "-55 %")


@pytest.mark.parametrize("exhibit_id", ["tab-4.1", "tab-4.2", "tab-4.3", "tab-4.4", "tab-4.5"])
def test_the_full_models_compute_is_the_count_of_their_architecture(exhibit_id):
    full = [row for row in exhibit(exhibit_id).rows if row.id.endswith("full")]
    assert full
    for row in full:
        count = next(BOUND[name] for name in BOUND if name in row.name)
        assert abs(float(row.values["gflops"]) - count) <= half_unit(row.values["gflops"]) + 1e-9, row.id


NONE_TINY, NONE_SMALL = ("tab-4.1", "avit-ti-none"), ("tab-4.1", "avit-s-none")
FULL_TINY, FULL_SMALL = ("tab-4.1", "avit-ti-full"), ("tab-4.1", "avit-s-full")
ATTACKED_TINY, ATTACKED_SMALL = ("tab-4.1", "avit-ti-slowformer"), ("tab-4.1", "avit-s-slowformer")
REPEATS = [
    *[(NONE_TINY, (e, row)) for e, row in (("tab-4.3", "none"), ("tab-4.4", "ti-none"), ("tab-4.6", "none"))],
    *[(FULL_TINY, (e, row)) for e, row in (("tab-4.3", "full"), ("tab-4.4", "ti-full"), ("tab-4.5", "ti-full"))],
    *[
        (ATTACKED_TINY, (e, row))
        for e, row in (("tab-4.3", "agnostic"), ("tab-4.4", "ti-64"), ("tab-4.6", "slowformer"))
    ],
    (NONE_SMALL, ("tab-4.4", "s-none")),
    (FULL_SMALL, ("tab-4.4", "s-full")),
    (FULL_SMALL, ("tab-4.5", "s-full")),
    (ATTACKED_SMALL, ("tab-4.4", "s-64")),
    *[(("tab-4.1", f"{b}-none"), ("tab-4.5", f"{b}-none")) for b in BLOCKS if b != "ats-b"],
]


@pytest.mark.parametrize(("first", "again"), REPEATS)
def test_a_row_that_is_printed_again_has_the_same_values_to_rounding(first, again):
    for column in ("gflops", "top1", "success"):
        one, other = cell(*first, column), cell(*again, column)
        assert (one is None) == (other is None)
        assert one is None or same_to_rounding(one, other), column


def test_the_patches_areas_follow_from_their_sides():
    for row in exhibit("tab-4.4").rows:
        if row.values["side"] is not None:
            area = 100 * (int(row.values["side"]) / 224) ** 2
            assert abs(area - float(row.values["area"])) <= half_unit(row.values["area"])


def test_half_of_adavits_own_bound_follows_from_table_4_1():
    gflops = [cell("tab-4.1", f"adavit-s-{row}", "gflops") for row in ("slowformer", "none")]
    allowed = attack_success(*gflops, cell("prose-4.1.5.1-bound", "whole", "gflops"))
    assert follows(cell("prose-4.1.5.1-bound", "patch", "success"), allowed)


def test_the_mean_depth_on_cifar_10_fits_the_gflops():
    full = float(cell("tab-4.2", "avit-ti-full", "gflops"))
    for attack in ("none", "slowformer"):
        layers = 12 * float(cell("tab-4.2", f"avit-ti-{attack}", "gflops")) / full
        assert abs(layers - float(cell("prose-4.1.5.1-depth", attack, "depth"))) <= 0.6


@pytest.mark.parametrize(
    ("exhibit_id", "words"),
    [
        ("tab-4.1", ("TAP on AdaViT", "2.28")),
        ("tab-4.2", ("Table B.10",)),
        ("tab-4.2", ("40 %", "41 %")),
        ("tab-4.4", ("73 %", "78 %")),
        ("tab-4.5", ("1.3 GFLOPs",)),
        ("fig-C.1", ("cites Figure C.1",)),
        ("fig-C.3", ("cites Figure C.4",)),
        ("fig-C.3", ("10,000 iterations", "512")),
        ("fig-C.4", ("cites Figure C.3",)),
        ("fig-4.1", ("almost 20 %", "16.7 %")),
    ],
)
def test_what_contradicts_itself_has_an_erratum(exhibit_id, words):
    assert says(exhibit_id, *words)
