"""A suffix for language models, on random tiny ones in which the end of text is made likely."""

import pytest
import torch

from effbook.backbones.language import toy_lm
from effbook.errors import EffbookError
from effbook.slowformer import SuffixConfig, chat_prompts, find_suffix, measure_suffix, random_suffix
from effbook.slowformer.suffix import Prompt, _gradient, _losses, end_loss, end_tokens, placed, write

CONFIG = SuffixConfig(suffix_tokens=4, steps=8, prompts_per_step=6, horizon_tokens=8, candidates=32, tries=24, seed=1)
END = 2


def model(scale=16.0, dtype=torch.float32):
    lm, _ = toy_lm(seed=0)
    with torch.no_grad():
        lm.get_input_embeddings().weight[END] *= scale  # tied with the head
    return lm.to(dtype)


def prompts(count=12):
    draw = torch.Generator().manual_seed(0)
    return [
        Prompt(torch.randint(3, 259, (6,), generator=draw), torch.randint(3, 259, (2,), generator=draw))
        for _ in range(count)
    ]


def test_the_found_suffix_makes_the_model_write_more_on_unseen_prompts_than_a_random_one():
    lm, every = model(), prompts()
    lm.train().requires_grad_(True)
    state, weights = torch.get_rng_state(), {k: v.clone() for k, v in lm.state_dict().items()}
    banned, steps = [0, 1], []
    found = find_suffix(lm, every[:6], config=CONFIG, banned=banned, watch=lambda *step: steps.append(step))
    assert torch.equal(torch.get_rng_state(), state)
    assert lm.training
    assert all(p.requires_grad and p.grad is None for p in lm.parameters())
    assert all(torch.equal(weights[k], v) for k, v in lm.state_dict().items())
    assert [step[0] for step in steps] == list(range(1, 9))
    assert not set(found.suffix.tolist()) & {0, 1, END}

    random = random_suffix(lm, config=CONFIG, banned=banned)
    assert found.losses[-1] < found.losses[0]
    more = measure_suffix(lm, every[6:], found.suffix, most_tokens=24)
    fewer = measure_suffix(lm, every[6:], random, most_tokens=24)
    assert sum(more.tokens) > 1.3 * sum(fewer.tokens)
    assert max(more.tokens) == 24
    assert min(more.seconds) > 0
    assert len(more.seconds) == 6


def test_the_search_is_the_same_again_and_another_with_another_seed():
    short = {"suffix_tokens": 3, "steps": 2, "prompts_per_step": 2, "horizon_tokens": 3, "tries": 4}
    one, two, other = (find_suffix(model(), prompts(4), config=SuffixConfig(**short, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(one.suffix, two.suffix)
    assert one.losses == two.losses
    assert not torch.equal(one.suffix, other.suffix)


def test_the_model_writes_what_transformers_writes_greedily():
    lm = model()
    for prompt in prompts(5):
        ids = placed(prompt, torch.tensor([9, 8]))
        kept = {"attention_mask": torch.ones(1, len(ids)).long(), "do_sample": False, "pad_token_id": 0}
        theirs = lm.generate(ids[None], max_new_tokens=10, **kept)[0, len(ids) :]
        assert torch.equal(write(lm, ids, 10, end=[END]), theirs)
        theirs = lm.generate(ids[None], max_new_tokens=10, min_new_tokens=10, **kept)[0, len(ids) :]
        assert torch.equal(write(lm, ids, 10, end=[END], past_end=True), theirs)


def test_the_loss_is_the_mean_log_probability_of_the_end_over_the_steps_written():
    lm, prompt, suffix = model(dtype=torch.float64), prompts(1)[0], torch.tensor([9, 8, 7])
    ids = placed(prompt, suffix)
    text = write(lm, ids, 5, end=[END], past_end=True)
    expected = 0.0
    for step in range(5):
        seen = torch.cat([ids, text[:step]])
        with torch.no_grad():
            expected += lm(input_ids=seen[None]).logits[0, -1].log_softmax(0)[END].item() / 5
    (found,) = _losses(lm, prompt, suffix[None], text, [END])
    assert found.item() == pytest.approx(expected, rel=1e-5)
    logits = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
    two_ends = (logits.softmax(-1)[..., 1] + logits.softmax(-1)[..., 4]).log().mean(1)
    torch.testing.assert_close(end_loss(logits, [1, 4]), two_ends)


def test_the_gradient_is_that_of_one_hot_tokens():
    lm, prompt, suffix = model(dtype=torch.float64), prompts(1)[0], torch.tensor([9, 8, 7])
    text = write(lm, placed(prompt, suffix), 4, end=[END], past_end=True)
    table = lm.get_input_embeddings().weight.detach()
    one_hot = torch.nn.functional.one_hot(suffix, len(table)).double().requires_grad_()
    parts = [table[prompt.before], one_hot @ table, table[prompt.after], table[text[:-1]]]
    logits = lm(inputs_embeds=torch.cat(parts)[None]).logits[0, -4:]
    loss = logits.log_softmax(-1)[:, END].mean()
    (expected,) = torch.autograd.grad(loss, one_hot)
    found, value = _gradient(lm.requires_grad_(False), prompt, suffix, text, [END])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert value == pytest.approx(loss.item(), rel=1e-5)


def test_another_architecture_will_do():
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        lm = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_positions=64, n_embd=16, n_layer=1, n_head=2, eos_token_id=5))
    short = SuffixConfig(suffix_tokens=2, steps=1, prompts_per_step=1, horizon_tokens=3, tries=2)
    some = [Prompt(torch.tensor([1, 2]), torch.tensor([], dtype=torch.long))]
    assert end_tokens(lm) == [5]
    assert len(find_suffix(lm, some, config=short).suffix) == 2
    assert measure_suffix(lm, some, torch.tensor([], dtype=torch.long), most_tokens=3).tokens[0] <= 3


def test_the_suffix_stands_at_the_end_of_the_users_turn():
    _, tokenizer = toy_lm()
    (prompt,) = chat_prompts(tokenizer, ["Say hello"])
    suffix = torch.tensor(tokenizer("!?")["input_ids"])
    text = tokenizer.decode(placed(prompt, suffix))
    assert text == "<|im_start|>user\nSay hello !?<|im_end|>\n<|im_start|>assistant\n"


def test_what_cannot_be_is_told_in_one_sentence():
    lm, (_, tokenizer) = model(), toy_lm()
    with pytest.raises(EffbookError, match="there are no prompts"):
        find_suffix(lm, [], config=CONFIG)
    with pytest.raises(EffbookError, match="every token is banned"):
        find_suffix(lm, prompts(1), config=CONFIG, banned=range(259))
    with pytest.raises(EffbookError, match="which marks the suffix's place"):
        chat_prompts(tokenizer, ["a\u2402b"])
    tokenizer.chat_template = None
    with pytest.raises(EffbookError, match="no chat template"):
        chat_prompts(tokenizer, ["a"])
    with pytest.raises(EffbookError, match="suffix_tokens is 0"):
        SuffixConfig(suffix_tokens=0)
    with torch.no_grad():
        lm.get_input_embeddings().weight[7] = torch.nan
    with pytest.raises(EffbookError, match="the suffix's loss is nan at step 1"):
        find_suffix(lm, prompts(1), config=CONFIG)
    lm.generation_config.eos_token_id = None
    with pytest.raises(EffbookError, match="names no end of text"):
        end_tokens(lm)
