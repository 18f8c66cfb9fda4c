"""From data-to-text pairs to batches of tokens, and the two ways to judge a model by them: its loss and its texts."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effbook.errors import EffbookError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

    from effbook.data.text import Pair


@dataclass(frozen=True, kw_only=True)
class Example:
    """Token ids of a prompt and of the text that should follow it, end of text included."""

    prompt: tuple[int, ...]
    target: tuple[int, ...]

    @property
    def size(self) -> int:
        return len(self.prompt) + len(self.target)


def encode(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[tuple[str, str]]) -> list[Example]:
    """Tokenise (prompt, answer) pairs, each side apart, so that a prompt is the same with and without its answer."""
    prompts = tokenizer([prompt for prompt, _ in texts]).input_ids
    answers = tokenizer([answer for _, answer in texts], add_special_tokens=False).input_ids
    return [
        Example(prompt=tuple(prompt), target=(*answer, tokenizer.eos_token_id))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def short_enough(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[tuple[str, str]], max_tokens: int
) -> list[Example]:
    """Tokenise (prompt, answer) pairs; leave out those longer than `max_tokens`. EffbookError if none is left."""
    examples = [e for e in encode(tokenizer, texts) if e.size <= max_tokens]
    if not examples:
        raise EffbookError(f"no example has at most {max_tokens} tokens", "raise max_tokens")
    return examples


def hold_out(pairs: "Sequence[Pair]", count: int) -> "tuple[list[Pair], list[Pair]]":
    """Split sources, always in the same way, into those to train on and `count` held-out ones.

    Raises EffbookError where nothing would be left to train on.
    """
    if count >= len(pairs):
        raise EffbookError(f"{count} sources cannot be held out of {len(pairs)}", "hold out fewer")
    order = list(range(len(pairs)))
    random.Random(0).shuffle(order)
    return [pairs[i] for i in sorted(order[count:])], [pairs[i] for i in sorted(order[:count])]


def draw(items: Sequence, count: int | None) -> list:
    """`count` of the items (None: all), drawn once and for all runs, in their order."""
    if count is None or count >= len(items):
        return list(items)
    return [items[i] for i in sorted(random.Random(1).sample(range(len(items)), count))]


def epoch_order(count: int, *, seed: int, epoch: int) -> list[int]:
    """The order of an epoch, from (seed, epoch) alone, so that a resumed run goes on exactly where it was cut."""
    order = list(range(count))
    random.Random(seed * 100_003 + epoch).shuffle(order)
    return order


def collate(examples: Sequence[Example], device: "str | object" = "cpu") -> "tuple[Tensor, Tensor, Tensor]":
    """Right-padded ids, attention mask and labels, each [B, T]; labels are -100 outside the targets."""
    import torch

    size = max(e.size for e in examples)
    ids = torch.zeros(len(examples), size, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, e in enumerate(examples):
        ids[row, : e.size] = torch.tensor((*e.prompt, *e.target))
        mask[row, : e.size] = 1
        labels[row, len(e.prompt) : e.size] = torch.tensor(e.target)
    return ids.to(device), mask.to(device), labels.to(device)


def target_loss(model: "nn.Module", examples: Sequence[Example], *, label_smoothing: float = 0.0) -> "Tensor":
    """Mean cross-entropy in nats over the target tokens of a batch (scalar)."""
    import torch.nn.functional as F
    from torch.nn.utils import parametrize

    ids, mask, labels = collate(examples, model.device)
    # With 50,000 words the logits would be the largest tensor of all: none are computed before the first target.
    first = min(len(e.prompt) for e in examples) - 1  # position t predicts token t + 1
    with parametrize.cached():  # quantisation-aware LoRA rounds its weights once a pass, not at every look at them
        out = model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=ids.shape[1] - first)
    logits, labels = out.logits[:, :-1].float(), labels[:, first + 1 :]  # [B, T - first - 1, V], [B, T - first - 1]
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, label_smoothing=label_smoothing)


def mean_target_loss(model: "nn.Module", examples: Sequence[Example], *, batch_size: int) -> float:
    """Teacher-forced cross-entropy in nats a token over all targets, without smoothing; model in evaluation mode."""
    import torch

    model.eval()
    by_size = sorted(examples, key=lambda e: e.size)
    total = 0.0
    with torch.inference_mode():
        for start in range(0, len(by_size), batch_size):
            batch = by_size[start : start + batch_size]
            total += float(target_loss(model, batch)) * sum(len(e.target) for e in batch)
    return total / sum(len(e.target) for e in examples)


def write_texts(
    model: "nn.Module",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Sequence[int]],
    *,
    batch_size: int,
    max_new_tokens: int,
    beams: int = 1,
    length_penalty: float = 1.0,
    no_repeat_ngram: int = 0,
    advance: Callable[[int], None] | None = None,
) -> list[str]:
    """The model's texts for tokenised prompts, greedy (beams = 1) or by beam search; like lengths together."""
    import torch
    from torch.nn.utils import parametrize
    from transformers import GenerationConfig, LogitsProcessorList, NoRepeatNGramLogitsProcessor

    class NoRepeatInText(NoRepeatNGramLogitsProcessor):
        """The library's own also forbids what the prompt holds, here the names that the text must repeat."""

        def __call__(self, input_ids: "Tensor", scores: "Tensor") -> "Tensor":
            return super().__call__(input_ids[:, prompt_size:], scores)

    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        num_beams=beams,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **({"length_penalty": length_penalty} if beams > 1 else {}),
    )
    model.eval()
    texts = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        prompt_size = max(len(prompts[i]) for i in batch)
        ids = torch.full((len(batch), prompt_size), tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(batch):  # left-padded, so that all texts begin at the same position
            ids[row, prompt_size - len(prompts[i]) :] = torch.tensor(prompts[i])
            mask[row, prompt_size - len(prompts[i]) :] = 1
        processors = LogitsProcessorList([NoRepeatInText(no_repeat_ngram)] if no_repeat_ngram else [])
        with torch.inference_mode(), parametrize.cached():
            out = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                generation_config=settings,
                logits_processor=processors,
            )
        for row, i in enumerate(batch):
            texts[i] = " ".join(tokenizer.decode(out[row, prompt_size:], skip_special_tokens=True).split())
        if advance is not None:
            advance(len(batch))
    return texts
