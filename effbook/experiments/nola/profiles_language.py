"""What each profile changes in the language and the instruction recipes; `profiles.py` joins it to the other tables."""

from typing import Any

from effbook.experiments.shared.profiles import SKIP

# NOLA's k by the ratio of LoRA's rank-one counts, SmolLM2's 57,600 to GPT-2 M's 98,304 rounded down: k = 1000 becomes
# 480, which is 57,600 coefficients (30 blocks x 2 layers x 2 x 480), exactly as many as LoRA of rank one.
K_RATIO = 0.48


def stand_in(recipe: Any) -> str | object:
    """SmolLM2-135M, for the rows below: all of them with three seeds would take hours where the chapter has two.

    DART is in no package. Full fine-tuning is quoted by the dissertation; SmolLM2's would need float32 and minutes.
    """
    if recipe.dataset == "dart" or recipe.method == "full":
        return SKIP
    if recipe.dataset == "webnlg":  # Table B.13: equal counts
        kept = recipe.target == "qv" and recipe.rank in (1, 8) and recipe.k == 1000
    elif recipe.method == "lora":
        kept = recipe.ptq_bits in (None, 8, 4, 3) and recipe.qat_bits in (None, 3)
    else:  # ranks 8 and 1; a whole, a quarter and an eighth of the coefficients; MLP; quantised
        kept = (
            (recipe.rank, recipe.k) in {(8, 1000), (8, 250), (8, 125), (1, 1000)}
            and (recipe.target == "qv" or recipe.k == 1000)
            and recipe.ptq_bits in (None, 8, 4, 3)
            and recipe.qat_bits in (None, 3)
        )
    return "smollm2" if kept else SKIP


LANGUAGE: dict = {
    "smoke": {
        "model": "toy",
        "dataset": "toy-pairs",
        "rank": lambda r: min(r.rank, 2),
        "k": 8,
        "steps": 3,
        "batch_size": 4,
        "warmup_steps": 1,
        "beams": 1,
        "max_new_tokens": 8,
        "validation_pairs": 4,
        "test_inputs": 4,
        "metrics": ("bleu", "nist", "ter"),  # the others start Java
        "keep_adapters": False,
    },
    "mini": {
        "model": stand_in,
        "k": lambda r: round(r.k * K_RATIO),
        "steps": 32,
        "batch_size": 4,
        "learning_rate": lambda r: MINI_RATE[r.method],
        "weight_decay": 0.0,
        "warmup_steps": 4,
        "beams": 1,
        "max_new_tokens": 48,
        "max_tokens": 64,
        # this E2E has no training file: its dev split is trained on, but for 100 of its 547 sources
        "train_split": lambda r: "dev" if r.dataset == "e2e" else "train",
        "validation_pairs": 64,
        "test_inputs": 48,
        "dtype": "bfloat16",
        "keep_adapters": lambda r: quantised_later(r),
    },
}
LANGUAGE["lab"] = {  # one GPU, and the open internet for E2E's training file and DART
    "model": "smollm2",
    "k": LANGUAGE["mini"]["k"],
    "steps": 600,
    "learning_rate": lambda r: MINI_RATE[r.method],
    "weight_decay": 0.0,
    "warmup_steps": 50,
    "beams": 1,
    "max_tokens": 160,
    "validation_pairs": 1000,
    "keep_adapters": LANGUAGE["mini"]["keep_adapters"],
}
# Chosen by the loss on held-out pairs of E2E's dev split, seed 0. LoRA r = 1 at 40 steps: 1e-3 1.640, 3e-3 1.537, 1e-2
# 1.565. NOLA at 40 steps: 1e-2 1.702, 3e-2 1.561; at the 32 steps used: 3e-2 1.619, 1e-1 1.599 (and LoRA 3e-3 1.546).
# 1e-1 is the dissertation's own. Other ranks, the MLP and WebNLG take the same rates, untuned.
MINI_RATE = {"none": 0.0, "full": 1e-4, "lora": 3e-3, "nola": 0.1}


def quantised_later(recipe: Any) -> bool:
    """Whether Table 3.13 quantises this run's coefficients: only those are kept beside a record."""
    if recipe.dataset != "e2e" or recipe.target != "qv" or recipe.qat_bits or recipe.shared_basis:
        return False
    return (recipe.method, recipe.rank) == ("lora", 1) or (recipe.method, recipe.rank, recipe.k) == ("nola", 8, 1000)


INSTRUCTION: dict = {
    "smoke": {
        "model": "toy",
        "dataset": "toy-pairs",
        "rank": lambda r: min(r.rank, 2),
        "k": 8,
        "int8": False,
        "steps": 2,
        "batch_size": 4,
        "micro_batch_size": 2,
        "held_out": 20,
        "evaluated": 4,
        "mmlu": False,
    },
    "mini": {
        # one size of LLaMA-2 stands for all three: there is but one SmolLM2 in a package
        "model": lambda r: "smollm2" if r.model == "llama2-7b" else SKIP,
        "dataset": "webnlg",  # put as instructions: Alpaca is in no package, and neither is MMLU
        # 1/8: with LLaMA-2 7B's k = 128, 6,720 coefficients to rank-one LoRA's 305,280, the paper's ratio of 2.3 %
        "k": lambda r: r.k // 8,
        "steps": 16,
        "batch_size": 4,
        "micro_batch_size": 16,
        "learning_rate": lambda r: INSTRUCTION_RATE[r.method],
        "lora_dropout": 0.0,  # there is no time to overfit
        "max_tokens": 128,
        "held_out": 500,
        "evaluated": 48,
        "mmlu": False,
    },
}
INSTRUCTION_RATE = {"none": 0.0, "lora": 3e-3, "nola": 3e-2}
INSTRUCTION["lab"] = INSTRUCTION["mini"] | {
    "dataset": "alpaca",
    "steps": 300,
    "batch_size": 32,
    "max_tokens": 512,
    "held_out": 1024,
    "evaluated": 1024,
    "mmlu": True,
}
