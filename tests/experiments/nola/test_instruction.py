"""Instruction tuning: at smoke scale, Alpaca and MMLU from small fakes, and the counts of Table 3.14's mini run."""

import pytest
import torch

from effbook import backbones, data
from effbook.data.text import Instruction
from effbook.errors import EffbookError
from effbook.experiments.nola.instruction import RATES, InstructionRecipe
from effbook.experiments.nola.mmlu import letter_tokens, mmlu_accuracy, prompt_of
from effbook.nola import count_parameters
from effbook.runs.profiles import scale
from effbook.runs.recipe import Context

pytestmark = pytest.mark.usefixtures("folders")


@pytest.mark.parametrize("method", ["none", "lora", "nola"])
def test_every_method_runs_at_smoke_and_says_what_it_leaves_out(tmp_path, method):
    result = scale(InstructionRecipe(method=method), "smoke").run(Context(profile="smoke", folder=tmp_path))
    assert result.metrics["train_loss"] > 0
    assert result.metrics["val_loss"] > 0
    assert result.metrics["mmlu"] is None
    assert "MMLU" in result.notes["mmlu"]
    assert "Alpaca" in result.notes["dataset"]
    assert (result.metrics["trainable"] == 0) == (method == "none")


def subject_questions(count):
    letters = "ABCD"
    return [
        Instruction(
            prompt=f"Which is {i}?\nA. 0\nB. 1\nC. 2\nD. 3\nAnswer:",
            response=letters[i % 4],
            category="algebra" if i % 2 else "law",
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("method", ["none", "lora", "nola"])
def test_the_papers_protocol_runs_on_a_small_model_with_small_alpaca_and_mmlu(tmp_path, monkeypatch, method):
    asked = []

    def pretrained(name, *, dtype, int8, device):
        asked.append((name, int8))
        return backbones.toy_lm()

    def load_instructions(name, split):
        if name == "mmlu":
            return subject_questions(12 if split == "dev" else 6)
        return [Instruction(prompt=f"Say {i}.", response=f"{i}!") for i in range(1040)]

    monkeypatch.setattr(backbones, "pretrained", pretrained)
    monkeypatch.setattr(data, "load_instructions", load_instructions)
    recipe = InstructionRecipe(method=method, evaluated=8, batch_size=8)
    result = recipe.run(Context(profile="paper", folder=tmp_path))
    assert asked == [("llama2-7b", True)]
    assert len(result.series["train_loss"]) == (0 if method == "none" else 2)  # 16 left to train on, one epoch
    assert 0 <= result.metrics["mmlu"] <= 100


def test_the_defaults_are_the_dissertations():
    r = InstructionRecipe()
    assert (r.rank, r.k, r.scale_c, r.lora_alpha, r.epochs, r.batch_size, r.int8) == (16, 128, 4.0, 16.0, 1, 256, True)
    assert (RATES["lora"], RATES["nola"]) == (2e-4, 1e-3)
    assert r.datasets() == ("alpaca", "llama2-7b", "mmlu")
    assert "gpu-gib:19" in r.needs()


# ----------------------------------------------------------------------------------------------------------- MMLU


def test_the_prompt_is_the_benchmarks_own():
    question, shot = subject_questions(3)[0], subject_questions(3)[2]
    assert prompt_of(question, [shot]) == (
        "The following are multiple choice questions (with answers) about law.\n\n"
        "Which is 2?\nA. 0\nB. 1\nC. 2\nD. 3\nAnswer: C\n\n"
        "Which is 0?\nA. 0\nB. 1\nC. 2\nD. 3\nAnswer:"
    )


def test_accuracy_is_the_share_of_questions_whose_letter_is_the_likeliest_continuation():
    model, tokenizer = backbones.toy_lm()
    examples, questions = subject_questions(12), subject_questions(8)
    right = 0
    for q in questions:
        shots = [e for e in examples if e.category == q.category][:5]
        loss = {}
        for letter in "ABCD":  # the slow twin: the loss of the letter's token, one whole prompt for each letter
            ids = tokenizer(f"{prompt_of(q, shots)} {letter}").input_ids
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[*ids[:-2], ids[-1]]])).logits[0, -2]
            loss[letter] = float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[-1])))
        right += min(loss, key=loss.get) == q.response
    accuracy = mmlu_accuracy(model, tokenizer, examples, questions, max_tokens=10_000)
    assert accuracy == pytest.approx(100 * right / len(questions))


def test_the_letters_tokens_are_four_different_ones():
    _, tokenizer = backbones.toy_lm()
    assert tokenizer.decode(letter_tokens(tokenizer)) == "ABCD"


def test_a_prompt_too_long_loses_examples_before_anything_else():
    model, tokenizer = backbones.toy_lm()
    questions = subject_questions(2)
    size = len(tokenizer(prompt_of(questions[0], [])).input_ids)
    seen = []
    handle = model.register_forward_pre_hook(lambda m, a, k: seen.append(k["input_ids"].shape[1]), with_kwargs=True)
    mmlu_accuracy(model, tokenizer, subject_questions(8), questions[:1], max_tokens=size + 3)
    handle.remove()
    assert seen == [size]


# ------------------------------------------------------------------------------------------------------- profiles


def test_mini_keeps_the_papers_ratio_of_nolas_count_to_loras():
    nola = scale(InstructionRecipe(method="nola"), "mini")
    lora = scale(InstructionRecipe(method="lora", rank=1), "mini")
    from effbook.experiments.nola.adapters import add_adapters

    counts = {
        r.method: count_parameters(
            add_adapters(
                backbones.meta("smollm2"),
                method=r.method,
                target="all",
                rank=r.rank,
                k=r.k,
                scale_c=r.scale_c,
                lora_alpha=r.lora_alpha,
                seed=0,
            )
        )
        for r in (nola, lora)
    }
    assert counts == {"nola": 6_720, "lora": 305_280}
    assert counts["nola"] / counts["lora"] == pytest.approx(57_344 / 2_498_560, rel=0.05)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"rank": 0}, "rank"),
        ({"k": 0}, "k is 0"),
        ({"method": "full"}, "full"),
        ({"steps": 0}, "steps"),
        ({"learning_rate": -1.0}, "learning_rate is -1"),
        ({"shots": -1}, "shots is -1"),
        ({"lora_dropout": 1.0}, "below 1"),
    ],
)
def test_impossible_values_are_refused_in_one_sentence(fields, word):
    with pytest.raises(EffbookError, match=word):
        InstructionRecipe(**fields)
