"""Verdicts: every claim of the register can hold and can fail, and noise or few seeds leave it undecided."""

import numpy as np
import pytest
from scipy.optimize import linprog

from effbook import experiments
from effbook.exhibits import exhibit, register
from effbook.exhibits.claims import judge, verdict
from effbook.exhibits.sentences import Cell, Claim, Sum
from effbook.exhibits.text import number
from effbook.runs import bench as ledger

CLAIMS = [(e.id, c.id) for e in register().values() for c in e.claims]


def place(cell, of):
    return (cell.exhibit or of, cell.row, cell.column)


def weights(operand, sign, of):
    if isinstance(operand, Cell):
        return [(place(operand, of), sign)], 0.0
    if isinstance(operand, Sum):
        return [(place(cell, of), sign * cell.times) for cell in operand.sum], 0.0
    return [], sign * operand


def invent(tests, of, *, satisfied, slack, near_margin=False, least=0.001):
    """Values, from `least` to LARGEST, where every test holds (or none does) by `slack`; None if impossible.

    Each test is one linear inequality: left - right - margin, or with a ratio left - margin x right, against 0.
    """
    places = sorted({place(c, of) for test in tests for c in test.cells})
    rows, bounds = [], []
    for test in tests:
        row, total = np.zeros(len(places)), 0.0
        right_sign = -test.margin if test.ratio else -1.0
        for operand, sign in ((test.left, 1.0), (test.right, right_sign)):
            parts, constant = weights(operand, sign, of)
            total += constant
            for where, weight in parts:
                row[places.index(where)] += weight
        total -= 0.0 if test.ratio else test.margin
        upward = (test.op in (">", ">=")) == satisfied
        rows.append(-row if upward else row)  # linprog wants row @ x <= bound
        bounds.append((total if upward else -total) - slack)
    wish = -np.sum(rows, axis=0) if near_margin else np.zeros(len(places))
    found = linprog(wish, A_ub=np.array(rows), b_ub=bounds, bounds=(least, LARGEST))
    return dict(zip(places, np.round(found.x, 7), strict=True)) if found.success else None


LARGEST = 1e4


def three_seeds(values):
    return {where: [value] * 3 for where, value in values.items()}


def verdict_of(claim, found, values, table):
    """The verdict on values by (exhibit, row, column), each a list of seeds."""
    ids = dict.fromkeys([found.id, *(c.exhibit for test in claim.tests for c in test.cells if c.exhibit)])
    made = [table(exhibit(i), {k[1:]: v for k, v in values.items() if k[0] == i}) for i in ids]
    return judge(claim, found, "paper", made[0], made[1:]).verdict


@pytest.mark.parametrize(("exhibit_id", "claim_id"), CLAIMS)
def test_every_claim_holds_on_values_that_satisfy_it(exhibit_id, claim_id, table):
    found = exhibit(exhibit_id)
    tests = found.claim(claim_id).tests
    values = invent(tests, found.id, satisfied=True, slack=1e-4) or invent(tests, found.id, satisfied=True, slack=0.0)
    assert values is not None, "no values whatever satisfy this claim"
    assert verdict_of(found.claim(claim_id), found, three_seeds(values), table) == "holds"


@pytest.mark.parametrize(("exhibit_id", "claim_id"), CLAIMS)
def test_every_claim_fails_on_values_that_contradict_it(exhibit_id, claim_id, table):
    found = exhibit(exhibit_id)
    claim = found.claim(claim_id)
    tests = claim.tests if claim.most else claim.tests[:1]
    values = invent(tests, found.id, satisfied=False, slack=1e-4)
    assert values is not None, "no values whatever contradict this claim"
    for test in claim.tests:  # the other cells have run too
        for cell in test.cells:
            values.setdefault(place(cell, found.id), 50.0)
    assert verdict_of(claim, found, three_seeds(values), table) == "fails"


def is_arithmetic(exhibit_id, cell):
    return exhibit(cell.exhibit or exhibit_id).column(cell.column).arithmetic


MEASURED_CLAIMS = [
    (e, c) for e, c in CLAIMS if not any(is_arithmetic(e, x) for test in exhibit(e).claim(c).tests for x in test.cells)
]


@pytest.mark.parametrize(("exhibit_id", "claim_id"), MEASURED_CLAIMS)
def test_every_measured_claim_is_undecided_inside_the_seeds_noise(exhibit_id, claim_id, table):
    found = exhibit(exhibit_id)
    claim = found.claim(claim_id)
    at_margin = {"satisfied": True, "slack": 0.0, "near_margin": True}
    values = invent(claim.tests, found.id, **at_margin, least=50.0) or invent(claim.tests, found.id, **at_margin)
    draw = np.random.default_rng(1)
    swings = {where: draw.choice([-1, 1]) * draw.uniform(0.15, 0.3) for where in values}
    noisy = {where: [v * (1 + swings[where] * step) for step in (1, -2, 1)] for where, v in values.items()}
    assert verdict_of(claim, found, noisy, table) == "undecided"


@pytest.mark.parametrize(("exhibit_id", "claim_id"), CLAIMS)
def test_a_claim_without_records_is_not_run(exhibit_id, claim_id, table):
    found = exhibit(exhibit_id)
    assert verdict_of(found.claim(claim_id), found, {}, table) == "not run"


def printed_values(exhibit_ids):
    return {
        (one.id, row.id, column.id): [number(row.values[column.id], column.mega)] * 3
        for one in map(exhibit, exhibit_ids)
        for row in one.rows
        for column in one.columns
        if row.values.get(column.id) and not column.setting
    }


@pytest.mark.parametrize(("exhibit_id", "claim_id"), CLAIMS)
def test_the_printed_values_satisfy_the_claims(exhibit_id, claim_id, table):
    """The dissertation's numbers support its sentences, so a claim is not a misreading of ours; or an erratum says so.

    Where they do not give all the values that the claim needs, nothing is decided.
    """
    found = exhibit(exhibit_id)
    claim = found.claim(claim_id)
    read = [[place(c, found.id) for c in test.cells] for test in claim.tests]
    values = printed_values({where[0] for test in read for where in test})
    complete = [all(where in values for where in test) for test in read]
    decided = any(complete) if claim.most or claim.partial else all(complete)
    if claim.disputed:
        assert found.errata
        assert verdict_of(claim, found, values, table) == "fails"
    else:
        assert verdict_of(claim, found, values, table) == ("holds" if decided else "not run")


def test_the_interval_of_the_paired_difference_decides(small, table):
    paired = {("a", "accuracy"): [60.0, 70.0, 80.0], ("b", "accuracy"): [59.0, 69.1, 78.9]}
    outcome = judge("better", small, "paper", table(small, paired)).outcomes[0]
    assert outcome.verdict == "holds"  # the seeds differ by 10, the rows by 1: pairing sees it
    assert outcome.estimate == pytest.approx(1.0, abs=0.01)
    differences = np.array([1.0, 0.9, 1.1])
    assert outcome.half_width == pytest.approx(4.302653 * differences.std(ddof=1) / np.sqrt(3), rel=1e-6)
    noisy = {("a", "accuracy"): [60.0, 70.0, 80.0], ("b", "accuracy"): [69.1, 78.9, 59.0]}
    assert judge("better", small, "paper", table(small, noisy)).verdict == "undecided"


@pytest.mark.parametrize("n", [1, 2])
def test_fewer_than_three_seeds_decide_nothing(small, table, n):
    values = {("a", "accuracy"): [90.0] * n, ("b", "accuracy"): [10.0] * n}
    judged = judge("better", small, "mini", table(small, values, profile="mini"))
    assert judged.verdict == "undecided"
    assert "fewer than 3 seeds" in judged.why


def test_only_the_seeds_in_common_are_compared(small, table):
    made = table(small, {("a", "accuracy"): [90.0] * 5, ("b", "accuracy"): [10.0] * 3})
    assert judge("better", small, "paper", made).outcomes[0].n == 3


def test_a_run_is_not_compared_with_itself(small, table):
    values = {("a", "accuracy"): [90.0] * 3, ("b", "accuracy"): [90.0] * 3}
    same = [("a", "accuracy"), ("b", "accuracy")]
    judged = judge("better", small, "mini", table(small, values, profile="mini", same_run=same))
    assert judged.verdict == "not run"
    assert "same run" in judged.why


def test_two_metrics_of_one_run_are_compared(small, table):
    column = small.columns[1].model_copy(update={"id": "other", "metric": "rank"})
    both = small.model_copy(update={"columns": (*small.columns, column)})
    one = {"row": "a", "column": "accuracy"}, {"row": "a", "column": "other"}
    made = table(both, {("a", "accuracy"): [9.0] * 3, ("a", "other"): [8.0] * 3}, same_run=[("a", "accuracy")])
    test = {"left": one[0], "right": one[1], "op": ">"}
    assert judge(claim(all=[test]), both, "mini", made).verdict == "holds"
    same = table(both, {("a", "accuracy"): [9.0] * 3}, same_run=[("a", "accuracy")])
    assert judge(claim(all=[test | {"right": one[0]}]), both, "mini", same).verdict == "not run"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"sum": [{"row": "a", "column": "accuracy"}, {"row": "b", "column": "accuracy", "times": -1}]}, 0.0),
        (
            {"sum": [{"row": "a", "column": "accuracy"}, {"row": "b", "column": "accuracy"}]},
            {"sum": [{"row": "b", "column": "accuracy", "times": 2}]},
        ),
    ],
)
def test_a_sum_in_which_one_run_cancels_out_is_no_comparison(small, table, left, right):
    values = {("a", "accuracy"): [90.0] * 3, ("b", "accuracy"): [90.0] * 3}
    test = {"left": left, "right": right, "op": ">"}
    apart = judge(claim(all=[test]), small, "mini", table(small, values, profile="mini"))
    assert apart.verdict == "fails"
    same = [("a", "accuracy"), ("b", "accuracy")]
    judged = judge(claim(all=[test]), small, "mini", table(small, values, profile="mini", same_run=same))
    assert (judged.verdict, judged.why) == ("not run", "both sides are the same run under mini")


def test_huffman_against_fixed_codes_of_one_run_is_judged():
    assert verdict("huffman", "fig-B.1", "mini") == "holds"


def test_seeds_that_share_a_draw_count_once(small, table):
    a = {("a", "accuracy"): [1.0, 1.1, 0.9, 2.0, 2.2, 1.8, 3.0, 3.3, 2.7], ("b", "accuracy"): [0.0] * 9}
    draws = {seed: seed // 3 for seed in range(9)}
    made = table(small, a, draws={("a", "accuracy"): draws})
    outcome = judge("better", small, "paper", made).outcomes[0]
    assert (outcome.n, outcome.estimate) == (3, pytest.approx(2.0))
    assert outcome.half_width == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)
    assert outcome.verdict == "undecided"  # nine independent seeds would have decided
    assert judge("better", small, "paper", table(small, a)).verdict == "holds"
    six = {where: values[:6] for where, values in a.items()}
    judged = judge("better", small, "paper", table(small, six, draws={("b", "accuracy"): draws}))
    assert (judged.verdict, judged.outcomes[0].n) == ("undecided", 2)


def test_smoke_gives_no_verdict_on_measurements(small, table):
    values = {("a", "accuracy"): [90.0] * 3, ("b", "accuracy"): [10.0] * 3}
    assert judge("better", small, "smoke", table(small, values, profile="smoke")).verdict == "not run"


def claim(**parts):
    return Claim.model_validate({"id": "c", "text": "t", "source": "s", **parts})


TWO = [
    {"left": {"row": "a", "column": "accuracy"}, "right": 50.0, "op": ">"},
    {"left": {"row": "b", "column": "accuracy"}, "right": 50.0, "op": ">"},
]


@pytest.mark.parametrize(
    ("a", "b", "together", "most"),
    [
        ([90.0] * 3, [90.0] * 3, "holds", "holds"),
        ([90.0] * 3, [10.0] * 3, "fails", "fails"),  # one of two is not more than half
        ([90.0] * 3, [10.0, 50.0, 90.0], "undecided", "undecided"),
        ([10.0] * 3, [10.0, 50.0, 90.0], "fails", "fails"),
        ([90.0] * 3, [], "not run", "holds"),  # `most` is judged on what ran
        ([10.0] * 3, [], "fails", "fails"),  # one counterexample is enough
    ],
)
def test_tests_are_joined_by_all_and_by_most(small, table, a, b, together, most):
    made = table(small, {("a", "accuracy"): a, ("b", "accuracy"): b})
    assert judge(claim(all=TWO), small, "paper", made).verdict == together
    assert judge(claim(most=TWO), small, "paper", made).verdict == most


def test_a_claim_against_a_number_of_the_dissertations_scale_is_judged_under_paper_only(small, table):
    above = claim(all=[TWO[0]], paper_only=True)
    values = {("a", "accuracy"): [90.0] * 3}
    judged = judge(above, small, "mini", table(small, values, profile="mini"))
    assert judged.verdict == "not run"
    assert "the dissertation's scale" in judged.why
    assert judge(above, small, "paper", table(small, values)).verdict == "holds"


def test_a_partial_claim_is_judged_on_what_ran_and_says_so(small, table):
    made = table(small, {("a", "accuracy"): [90.0] * 3})
    judged = judge(claim(all=TWO, partial=True), small, "paper", made)
    assert judged.verdict == "holds"
    assert "1 of 1 tests hold, 1 not run" in judged.why


def test_counts_are_compared_exactly_with_one_value(small, table):
    more = claim(
        all=[{"left": {"row": "a", "column": "trainable"}, "right": 3.0, "op": ">=", "ratio": True, "margin": 3}]
    )
    judged = judge(more, small, "mini", table(small, {("a", "trainable"): [9]}, profile="mini"))
    assert (judged.verdict, judged.arithmetic) == ("holds", True)
    assert judge(more, small, "mini", table(small, {("a", "trainable"): [8]}, profile="mini")).verdict == "fails"


def test_equal_values_are_on_the_margin_whatever_binary_fractions_do(small, table):
    within = claim(all=[TWO[0] | {"right": {"row": "b", "column": "accuracy"}, "op": ">=", "margin": -0.2}])
    made = table(small, {("a", "accuracy"): [0.1] * 3, ("b", "accuracy"): [0.3] * 3})
    assert judge(within, small, "paper", made).verdict == "holds"


def test_a_ratio_by_zero_is_undecided(small, table):
    ratio = claim(all=[TWO[0] | {"right": {"row": "b", "column": "accuracy"}, "ratio": True}])
    made = table(small, {("a", "accuracy"): [1.0] * 3, ("b", "accuracy"): [0.0] * 3})
    assert judge(ratio, small, "paper", made).verdict == "undecided"


def test_an_unknown_claim_is_refused_with_those_that_are_there():
    from effbook.errors import EffbookError

    with pytest.raises(EffbookError, match="it has pranc-linear"):
        verdict("linear", "fig-3.7", "paper")


def test_times_of_separate_runs_are_no_verdict_below_paper():
    found = judge("training-time-16k", exhibit("tab-3.1"), "mini")
    assert found.verdict == "not run"
    assert "in turns" in found.outcomes[0].why or "recorded" in found.outcomes[0].why


@pytest.mark.parametrize(
    ("low", "high", "verdict_"), [(4.7, 5.0, "holds"), (4.0, 4.5, "fails"), (4.5, 4.7, "undecided")]
)
def test_a_line_of_the_ledger_decides_on_times_below_paper_and_says_so(low, high, verdict_, monkeypatch):
    line = "step: PRANC / NOLA, ResNet-18"
    entry = {"ratio": {"value": (low + high) / 2, "low": low, "high": high, "pairs": 5}}
    monkeypatch.setattr(ledger, "recorded", lambda system: {line: entry} if system == "nola" else {})
    judged = judge("faster", "prose-3.2.4.6-time", "mini")
    assert judged.verdict == verdict_
    assert line in judged.why
    assert judge("faster", "prose-3.2.4.6-time", "paper").why != judged.why
    assert judge("faster", "prose-3.2.4.6-time", "smoke").verdict == "not run"


def test_a_ledger_without_the_line_or_with_few_pairs_gives_no_verdict(monkeypatch):
    monkeypatch.setattr(ledger, "recorded", lambda system: {})
    assert judge("faster", "prose-3.2.4.6-time", "mini").verdict == "not run"
    entry = {"ratio": {"value": 9.0, "low": 9.0, "high": 9.0, "pairs": 1}}
    monkeypatch.setattr(ledger, "recorded", lambda system: {"step: PRANC / NOLA, ResNet-18": entry})
    assert judge("faster", "prose-3.2.4.6-time", "mini").verdict == "undecided"


def test_every_line_that_a_claim_rests_on_is_in_its_chapters_ledger_and_is_a_ratio_of_times():
    experiments.load()
    named = [
        (found.chapter, test)
        for found in register().values()
        for claim in found.claims
        for test in claim.tests
        if test.bench is not None
    ]
    assert named
    for chapter, test in named:
        assert test.bench.line in {bench.name for bench in ledger.benches(chapter)}
        assert test.ratio or test.bench.margin is not None


def numbers_of(small, table, values, **changes):
    test = small.claims[0].all[0].model_copy(update=changes)
    claim = small.claims[0].model_copy(update={"all": (test,)})
    made = {(row, "accuracy"): seeds for row, seeds in values.items()}
    return judge(claim, small, "paper", table(small, made)).numbers


def test_a_verdict_has_its_numbers(small, table):
    values = {"a": [70.0, 71.0, 72.0], "b": [69.0, 69.0, 69.0]}
    assert numbers_of(small, table, values) == "difference +2 ±2.48 points, asked for > 0"
    assert numbers_of(small, table, values, margin=0.98, ratio=True) == "ratio 1.03 ±0.036, asked for > 0.98"
    assert numbers_of(small, table, values, right=65.0, op=">=") == "value 71 ±2.48 %, asked for ≥ 65"
    assert numbers_of(small, table, {}) == ""


def test_of_several_tests_the_numbers_are_those_of_the_one_that_decides(small, table):
    one = small.claims[0].all[0]
    lower = one.model_copy(update={"margin": -5.0})
    claim = small.claims[0].model_copy(update={"all": (lower, one)})
    values = {("a", "accuracy"): [70.0, 70.1, 70.2], ("b", "accuracy"): [72.0, 72.0, 72.0]}
    judged = judge(claim, small, "paper", table(small, values))
    assert judged.verdict == "fails"
    assert judged.numbers == "difference in Accuracy -1.9 ±0.248 points, asked for > 0"
