"""Text: data-to-text pairs and instructions, one short reader a format."""

import csv
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from effbook.data.generated import toy_pairs
from effbook.errors import EffbookError

TRIPLE_SEPARATOR = " && "
LETTERS = ("A", "B", "C", "D")  # of MMLU's choices
WEBNLG_SPLITS = {"train": "train", "dev": "dev", "test": "test", "test-seen": "test", "test-unseen": "test"}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Structured data as one line, and the texts that people wrote for it."""

    source: str
    references: tuple[str, ...]
    category: str = ""


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """A prompt and its answer; ``category`` is the subject where the data names one."""

    prompt: str
    response: str
    category: str = ""


def read_webnlg(folder: Path, split: str) -> list[Pair]:
    """WebNLG 1.4: triples "subject | predicate | object" joined by " && ", every text that its annotators approved.

    `test` holds all categories, `test-seen` those that occur in training, `test-unseen` the others.
    """
    root = folder / "en"
    seen = {path.stem for path in (root / "train").rglob("*.xml")}
    pairs = []
    for path in sorted((root / WEBNLG_SPLITS[split]).rglob("*.xml")):
        for entry in ElementTree.parse(path).getroot().iter("entry"):
            category = entry.get("category", "")
            if split in ("test-seen", "test-unseen") and (category in seen) != (split == "test-seen"):
                continue
            triples = [(triple.text or "").strip() for triple in entry.find("modifiedtripleset").iter("mtriple")]
            texts = [(lex.get("comment"), " ".join((lex.findtext("text") or "").split())) for lex in entry.iter("lex")]
            written = [(comment, text) for comment, text in texts if text]
            good = [text for comment, text in written if comment == "good"] or [text for _, text in written]
            if good:  # two entries of dev have no text at all
                pairs.append(Pair(source=TRIPLE_SEPARATOR.join(triples), references=tuple(good), category=category))
    return pairs


def read_e2e(folder: Path, split: str) -> list[Pair]:
    """E2E: all references of one meaning representation together, in the file's order."""
    name = {"train": "trainset.csv", "dev": "devset.csv", "test": "testset_w_refs.csv"}[split]
    path = folder / name
    if not path.exists():
        raise EffbookError(
            f"this copy of E2E has no {name}",
            "use another split, or put the file beside the others and fetch e2e again",
        )
    grouped: dict[str, list[str]] = {}
    with path.open(encoding="utf-8-sig", newline="") as stream:
        for row in csv.DictReader(stream):
            grouped.setdefault(row["mr"], []).append(row["ref"])
    return [Pair(source=source, references=tuple(texts)) for source, texts in grouped.items()]


def read_dart(folder: Path, split: str) -> list[Pair]:
    """DART: triples joined as for WebNLG, all annotations of a tripleset together; the category is their source."""
    content = json.loads((folder / f"dart-v1.1.1-full-{split}.json").read_text(encoding="utf-8"))
    pairs = []
    for entry in content:
        source = TRIPLE_SEPARATOR.join(" | ".join(triple) for triple in entry["tripleset"])
        texts = tuple(annotation["text"] for annotation in entry["annotations"])
        pairs.append(Pair(source=source, references=texts, category=entry["annotations"][0]["source"]))
    return pairs


def read_toy_pairs(folder: Path, split: str) -> list[Pair]:
    return [Pair(source=source, references=texts, category=kind) for source, texts, kind in toy_pairs(split)]


def read_alpaca(folder: Path, split: str) -> list[Instruction]:
    """Alpaca's JSON: the instruction, a blank line and its input where it has one. There is one split, `train`."""
    content = json.loads((folder / "alpaca_data.json").read_text(encoding="utf-8"))
    return [
        Instruction(prompt="\n\n".join(filter(None, (row["instruction"], row["input"]))), response=row["output"])
        for row in content
    ]


def read_mmlu(folder: Path, split: str) -> list[Instruction]:
    """MMLU's CSVs, one a subject: question, four choices, letter. `dev` holds the five examples of the prompt."""
    found = []
    for path in sorted((folder / "data" / split).glob(f"*_{split}.csv")):
        subject = path.stem.removesuffix(f"_{split}").replace("_", " ")
        with path.open(encoding="utf-8", newline="") as stream:
            for question, *choices, answer in csv.reader(stream):
                if answer not in LETTERS:
                    raise ValueError(f"{path.name}: the answer {answer!r} is none of {', '.join(LETTERS)}")
                lines = [
                    question,
                    *(f"{letter}. {text}" for letter, text in zip(LETTERS, choices, strict=True)),
                    "Answer:",
                ]
                found.append(Instruction(prompt="\n".join(lines), response=answer, category=subject))
    return found


PAIR_READERS: dict[str, Callable[[Path, str], list[Pair]]] = {
    "webnlg": read_webnlg,
    "e2e": read_e2e,
    "dart": read_dart,
    "toy-pairs": read_toy_pairs,
}
INSTRUCTION_READERS: dict[str, Callable[[Path, str], list[Instruction]]] = {
    "alpaca": read_alpaca,
    "mmlu": read_mmlu,
}
