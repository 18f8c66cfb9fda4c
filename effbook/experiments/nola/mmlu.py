"""MMLU with five examples in the context (Hendrycks et al. 2021): which of A, B, C and D does the model expect next?"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from effbook.data.text import Instruction

LETTERS = ("A", "B", "C", "D")


def prompt_of(question: "Instruction", shots: "Sequence[Instruction]") -> str:
    """The benchmark's prompt: a header that names the subject, the examples with their letters, the question."""
    header = f"The following are multiple choice questions (with answers) about {question.category}.\n\n"
    return header + "".join(f"{s.prompt} {s.response}\n\n" for s in shots) + question.prompt


def letter_tokens(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The token that each letter is, written after "Answer:"."""
    start = tokenizer("Answer:", add_special_tokens=False).input_ids
    return [tokenizer(f"Answer: {x}", add_special_tokens=False).input_ids[len(start) :][-1] for x in LETTERS]


def mmlu_accuracy(
    model: "nn.Module",
    tokenizer: "PreTrainedTokenizerBase",
    examples: "Sequence[Instruction]",
    questions: "Sequence[Instruction]",
    *,
    shots: int = 5,
    max_tokens: int = 2048,
    advance: Callable[[int], None] | None = None,
) -> float:
    """Percent of the questions, of all subjects together, whose letter has the largest logit.

    A prompt longer than `max_tokens` loses examples from its front, as in the benchmark's own script.
    """
    import torch

    letters = torch.tensor(letter_tokens(tokenizer), device=model.device)
    by_subject: dict[str, list] = {}
    for example in examples:
        by_subject.setdefault(example.category, []).append(example)
    model.eval()
    right = 0
    for question in questions:
        context = by_subject.get(question.category, [])[:shots]
        ids = tokenizer(prompt_of(question, context)).input_ids
        while len(ids) > max_tokens and context:
            context = context[1:]
            ids = tokenizer(prompt_of(question, context)).input_ids
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids[-max_tokens:]], device=model.device), logits_to_keep=1).logits
        right += LETTERS[int(logits[0, -1, letters].argmax())] == question.response.strip()
        if advance is not None:
            advance(1)
    return 100 * right / len(questions)
