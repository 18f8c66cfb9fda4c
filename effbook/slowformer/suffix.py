"""Beyond the dissertation's experiments: a universal suffix of tokens that delays a language model's end of text.

Chapter 5 asks whether such an attack exists. Here: the loss is the log-probability of the end token over the steps
that the model writes, and one token of the suffix changes at a time, chosen by the gradient for one-hot tokens. It
works with any causal language model of transformers that is handed in. What it finds are tokens; written as text they
may be read as others.

    prompts = chat_prompts(tokenizer, texts)
    suffix, losses = find_suffix(model, prompts[:16], config=SuffixConfig(), banned=tokenizer.all_special_ids)
    print(measure_suffix(model, prompts[16:], suffix, most_tokens=256))
"""

import math
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from effbook.errors import EffbookError
from effbook.slowformer.attack import device_of, frozen
from effbook.slowformer.config import SuffixConfig
from effbook.training.seeds import generator

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_FIRST, _PROMPTS, _TRIES = 0, 1, 2  # what is drawn, as the number after the seed
_AT_ONCE = 8  # exchanges tried in one batch: its logits are [8, tokens, vocabulary]
_MARK = "\u2402"  # where the suffix goes in a rendered chat; no prompt has it


class Prompt(NamedTuple):
    """Token ids before and after the place of the suffix, [P] and [Q]."""

    before: Tensor
    after: Tensor


class Found(NamedTuple):
    """A suffix [S] of token ids, and the loss at each step."""

    suffix: Tensor
    losses: list[float]


class Written(NamedTuple):
    """How much a model writes after each prompt, the end token included, and how long it takes."""

    tokens: list[int]
    seconds: list[float]


def chat_prompts(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> list[Prompt]:
    """One turn of a user each, with the suffix at its end and the turn of the assistant opened after it.

    Raises EffbookError for a tokenizer without a chat template, or a text that holds the mark of the place.
    """
    if not tokenizer.chat_template:
        raise EffbookError("the tokenizer has no chat template", "make `Prompt`s of token ids yourself")
    prompts = []
    for text in texts:
        turn = [{"role": "user", "content": f"{text} {_MARK}"}]
        parts = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True).split(_MARK)
        if len(parts) != 2:
            raise EffbookError(f"a prompt cannot hold {_MARK!r}, which marks the suffix's place", "leave it out")
        before, after = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in parts)
        prompts.append(Prompt(torch.tensor(before), torch.tensor(after, dtype=torch.long)))
    return prompts


def end_tokens(model: "PreTrainedModel") -> list[int]:
    """The tokens at which a model's text ends. Raises EffbookError where it names none."""
    of_model = getattr(model.generation_config or model.config, "eos_token_id", None)
    end = [of_model] if isinstance(of_model, int) else list(of_model or ())
    if not end:
        raise EffbookError("the model names no end of text", "set `model.generation_config.eos_token_id`")
    return end


def random_suffix(model: "PreTrainedModel", *, config: SuffixConfig, banned: Sequence[int] = ()) -> Tensor:
    """A suffix [S] of tokens drawn at random, never an end token or a banned one: what the search starts from."""
    usable = _usable(model, banned).nonzero()[:, 0]
    return usable[torch.randint(len(usable), (config.suffix_tokens,), generator=generator(config.seed, _FIRST))]


def find_suffix(
    model: "PreTrainedModel",
    prompts: Sequence[Prompt],
    *,
    config: SuffixConfig,
    banned: Sequence[int] = (),
    watch: Callable[[int, float, Tensor], None] | None = None,
) -> Found:
    """Search for a suffix that makes the end of text unlikely after every prompt; the model stays as it is.

    Each step takes some prompts, lets the model write past its ends, takes what it wrote as given, and keeps the best
    of the tried exchanges of a token if it lowers the loss. `watch` gets the step from 1, its loss, and the suffix.
    Raises EffbookError without prompts, without an end token, and for a loss that is not finite.
    """
    if not prompts:
        raise EffbookError("there are no prompts", "give at least one")
    end, usable = end_tokens(model), _usable(model, banned)
    suffix, losses = random_suffix(model, config=config, banned=banned), []
    with frozen(model):
        for step in range(1, config.steps + 1):
            chosen = torch.randperm(len(prompts), generator=generator(config.seed, _PROMPTS, step))
            seen = [prompts[i] for i in chosen[: config.prompts_per_step].tolist()]
            texts = [write(model, placed(p, suffix), config.horizon_tokens, end=end, past_end=True) for p in seen]
            gradients, now = zip(
                *(_gradient(model, p, suffix, t, end) for p, t in zip(seen, texts, strict=True)), strict=True
            )
            loss = math.fsum(now) / len(seen)
            if not math.isfinite(loss):
                raise EffbookError(f"the suffix's loss is {loss} at step {step}", "load the model in float32")
            promise = torch.stack(gradients).mean(0).masked_fill(~usable, torch.inf)  # [S, V], lower is better
            tries = _exchanges(suffix, promise, config=config, step=step)  # [T, S]
            each = torch.stack([_losses(model, p, tries, t, end) for p, t in zip(seen, texts, strict=True)]).mean(0)
            best = int(each.argmin())
            if float(each[best]) < loss:
                suffix, loss = tries[best], float(each[best])
            losses.append(loss)
            if watch is not None:
                watch(step, loss, suffix.clone())
    return Found(suffix, losses)


def measure_suffix(model: "PreTrainedModel", prompts: Sequence[Prompt], suffix: Tensor, *, most_tokens: int) -> Written:
    """Let a model write after each prompt with a suffix [S] (empty: none), greedily, one prompt at a time."""
    end, tokens, seconds = end_tokens(model), [], []
    with frozen(model):
        for prompt in prompts:
            start = perf_counter()
            tokens.append(len(write(model, placed(prompt, suffix), most_tokens, end=end)))
            seconds.append(perf_counter() - start)
    return Written(tokens, seconds)


def placed(prompt: Prompt, suffix: Tensor) -> Tensor:
    """The ids [T] of a prompt with the suffix in its place."""
    return torch.cat([prompt.before, suffix.to(prompt.before), prompt.after])


@torch.no_grad()
def write(
    model: "PreTrainedModel", ids: Tensor, most_tokens: int, *, end: Sequence[int], past_end: bool = False
) -> Tensor:
    """What a model writes greedily after ids [T], up to its end or `most_tokens`; `past_end`: it never ends."""
    written: list[int] = []
    rest, cache = ids[None].to(device_of(model)), None
    while len(written) < most_tokens:
        out = model(input_ids=rest, past_key_values=cache, use_cache=True)
        logits = out.logits[0, -1].clone()
        if past_end:
            logits[list(end)] = -torch.inf
        written.append(int(logits.argmax()))  # waits for the device, so that seconds are true
        if written[-1] in end:
            break
        cache = out.past_key_values
        rest = torch.tensor([written[-1:]], device=rest.device)
    return torch.tensor(written)


def end_loss(logits: Tensor, end: Sequence[int]) -> Tensor:
    """The log-probability that the text ends, [B], mean over the steps of logits [B, steps, V]."""
    return (logits[..., list(end)].logsumexp(-1) - logits.logsumexp(-1)).mean(-1)


def _gradient(
    model: "PreTrainedModel", prompt: Prompt, suffix: Tensor, text: Tensor, end: Sequence[int]
) -> tuple[Tensor, float]:
    """The loss's gradient for the one-hot tokens of the suffix, [S, V], and the loss."""
    embedding = model.get_input_embeddings()
    ids = torch.cat([placed(prompt, suffix), text[:-1]])[None].to(device_of(model))  # [1, T + H - 1]
    vectors = embedding(ids).detach().requires_grad_()
    loss = end_loss(model(inputs_embeds=vectors).logits[:, -len(text) :].float(), end)[0]
    (gradient,) = torch.autograd.grad(loss, vectors)
    start = len(prompt.before)
    of_suffix = gradient[0, start : start + len(suffix)]  # [S, D]
    return (of_suffix @ embedding.weight.to(of_suffix).T).cpu(), float(loss.detach())


@torch.no_grad()
def _losses(model: "PreTrainedModel", prompt: Prompt, tries: Tensor, text: Tensor, end: Sequence[int]) -> Tensor:
    """The loss of each suffix [T, S] with one prompt and a given text [H]: [T]."""
    found = []
    for some in tries.split(_AT_ONCE):
        ids = torch.stack([torch.cat([placed(prompt, suffix), text[:-1]]) for suffix in some]).to(device_of(model))
        found.append(end_loss(model(input_ids=ids).logits[:, -len(text) :].float(), end).cpu())
    return torch.cat(found)


def _exchanges(suffix: Tensor, promise: Tensor, *, config: SuffixConfig, step: int) -> Tensor:
    """Suffixes [T, S] that differ from this one in a token, drawn among the most promising of its place."""
    best = promise.topk(min(config.candidates, int(promise[0].isfinite().sum())), largest=False).indices  # [S, K]
    draw = generator(config.seed, _TRIES, step)
    places = torch.randint(len(suffix), (config.tries,), generator=draw)
    ranks = torch.randint(best.shape[1], (config.tries,), generator=draw)
    tries = suffix.repeat(config.tries, 1)
    tries[torch.arange(config.tries), places] = best[places, ranks]
    return tries


def _usable(model: "PreTrainedModel", banned: Sequence[int]) -> Tensor:
    """Which of the vocabulary [V] a suffix may hold. Raises EffbookError where nothing is left."""
    usable = torch.ones(len(model.get_input_embeddings().weight), dtype=torch.bool)
    usable[[*end_tokens(model), *banned]] = False
    if not usable.any():
        raise EffbookError("every token is banned from the suffix", "ban fewer")
    return usable
