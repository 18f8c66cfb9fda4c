"""Batches of text against the same arithmetic one example, and one word, at a time."""

import pytest
import torch

from effbook.backbones import toy_lm
from effbook.data import load_pairs
from effbook.errors import EffbookError
from effbook.experiments.nola.text_batches import (
    Example,
    draw,
    encode,
    epoch_order,
    hold_out,
    mean_target_loss,
    target_loss,
    write_texts,
)


@pytest.fixture(scope="module")
def toy():
    model, tokenizer = toy_lm()
    texts = [(pair.source + "\n", text) for pair in load_pairs("toy-pairs", "dev")[:3] for text in pair.references]
    examples = encode(tokenizer, texts)
    return model.double(), tokenizer, examples


def log_probabilities(model, example: Example) -> list[torch.Tensor]:
    """The slow twin: the words' log-probabilities [V] at each target, from one unpadded pass for each."""
    rows, known = [], list(example.prompt)
    for token in example.target:
        logits = model(input_ids=torch.tensor([known])).logits[0, -1]
        rows.append(torch.log_softmax(logits, -1))
        known.append(token)
    return rows


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_a_padded_batch_is_the_mean_over_its_targets_alone(toy, smoothing):
    model, _, examples = toy
    batch = [examples[0], examples[4], examples[8]]
    assert len({e.size for e in batch}) == len({len(e.prompt) for e in batch}) == 3
    terms = []
    for e in batch:
        for row, token in zip(log_probabilities(model, e), e.target, strict=True):
            terms.append(-(1 - smoothing) * row[token] - smoothing * row.mean())
    expected = torch.stack(terms).mean()
    torch.testing.assert_close(
        target_loss(model, batch, label_smoothing=smoothing), expected.float(), rtol=1e-5, atol=0
    )


def test_the_mean_loss_does_not_depend_on_the_batches(toy):
    model, _, examples = toy
    whole = mean_target_loss(model, examples, batch_size=len(examples))
    assert mean_target_loss(model, examples, batch_size=2) == pytest.approx(whole, rel=1e-6)


def test_greedy_texts_are_what_one_gets_word_by_word_without_padding(toy):
    model, tokenizer, examples = toy
    prompts = [e.prompt for e in examples[::3]]
    texts = write_texts(model, tokenizer, prompts, batch_size=2, max_new_tokens=6)
    for prompt, text in zip(prompts, texts, strict=True):
        ids = list(prompt)
        for _ in range(6):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
        assert text == " ".join(tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True).split())


class Parrot(torch.nn.Module):
    """A model that wants to repeat the word before last, whatever its prompt is."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, **others):
        out = self.model(input_ids=input_ids, **others)
        out.logits = torch.zeros_like(out.logits)
        out.logits[:, -1] = torch.nn.functional.one_hot(input_ids[:, -1], out.logits.shape[-1]).to(out.logits.dtype)
        return out


def test_a_repeated_phrase_is_forbidden_within_the_text_but_may_be_copied_from_the_prompt(toy, monkeypatch):
    model, tokenizer, _ = toy
    parrot = Parrot(toy_lm()[0])
    monkeypatch.setattr(model, "forward", parrot.forward)
    prompt = tokenizer("aaaaaaaa").input_ids
    free = write_texts(model, tokenizer, [prompt], batch_size=1, max_new_tokens=6)
    bound = write_texts(model, tokenizer, [prompt], batch_size=1, max_new_tokens=6, no_repeat_ngram=4)
    assert free == ["aaaaaa"]
    assert bound[0].startswith("aaaa")  # the prompt's own aaaa doesn't count
    assert not bound[0].startswith("aaaaa")  # a second aaaa does


def test_held_out_sources_are_always_the_same_and_never_trained_on():
    pairs = load_pairs("toy-pairs", "train")
    training, validation = hold_out(pairs, 20)
    assert (training, validation) == hold_out(pairs, 20)
    assert len(validation) == 20
    assert not {p.source for p in training} & {p.source for p in validation}
    assert len(training) + len(validation) == len(pairs)
    with pytest.raises(EffbookError, match="hold out fewer"):
        hold_out(pairs, len(pairs))


def test_a_drawn_part_keeps_the_order_and_an_epoch_is_a_permutation():
    assert draw(range(10), None) == list(range(10)) == draw(range(10), 30)
    part = draw(range(100), 5)
    assert part == sorted(part) == draw(range(100), 5)
    assert sorted(epoch_order(7, seed=1, epoch=2)) == list(range(7))
    assert epoch_order(50, seed=1, epoch=2) == epoch_order(50, seed=1, epoch=2) != epoch_order(50, seed=1, epoch=3)
