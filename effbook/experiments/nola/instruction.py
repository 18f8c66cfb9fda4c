"""Instruction tuning of a language model whose base is held in 8 bits (3.2.4.3, Table 3.14).

LoRA or NOLA on every linear layer of the blocks, over a frozen int8 base as in QLoRA; judged by the loss on answers
seen and unseen, and by MMLU with five examples.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from effbook.experiments.nola.adapters import add_adapters, language_model, save_adapters
from effbook.experiments.nola.mmlu import mmlu_accuracy
from effbook.experiments.nola.text_batches import draw, hold_out, mean_target_loss, short_enough
from effbook.experiments.nola.text_training import Trained, fit_texts, warmup_then_constant
from effbook.experiments.shared.training import trainable
from effbook.runs.recipe import Context, Cost, Recipe, Result, register_recipe

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from effbook.experiments.nola.text_batches import Example

MODELS = {  # -> manifest
    "llama2-7b": "llama2-7b",
    "llama2-13b": "llama2-13b",
    "llama2-70b": "llama2-70b",
    "smollm2": "smollm2-135m",
    "toy": None,
}
BILLIONS = {"llama2-7b": 7, "llama2-13b": 13, "llama2-70b": 70}
PAIRS = ("e2e", "webnlg", "toy-pairs")  # pairs of data and text, put as instructions where Alpaca cannot be had
RATES = {"none": 0.0, "lora": 2e-4, "nola": 1e-3}
TEMPLATE = (  # Alpaca's own
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{prompt}\n\n### Response:\n"
)
ASK = {
    "e2e": "Describe the restaurant in a sentence or two: {source}",
    "toy-pairs": "Describe the restaurant in a sentence: {source}",
    "webnlg": "Write a sentence or two that say these facts: {source}",
}


@register_recipe
@dataclass(frozen=True, kw_only=True)
class InstructionRecipe(Recipe):
    """Fine-tune on instructions; the defaults are the dissertation's protocol for LLaMA-2 7B.

    The text gives ranks, scales, learning rates, batch and epoch; what it leaves to QLoRA is QLoRA's (constant rate
    after 3 % warm-up, gradients clipped at 0.3, no weight decay, LoRA dropout 0.1, loss on answers alone).
    """

    system: ClassVar[str] = "nola"
    name: ClassVar[str] = "nola-instruction"
    varying: ClassVar[tuple[str, ...]] = ("step_ms",)

    model: Literal["llama2-7b", "llama2-13b", "llama2-70b", "smollm2", "toy"] = "llama2-7b"
    dataset: Literal["alpaca", "e2e", "webnlg", "toy-pairs"] = "alpaca"
    method: Literal["none", "lora", "nola"] = "nola"
    rank: PositiveInt = 16
    k: PositiveInt = 128  # = l
    scale_c: PositiveFloat = 4.0  # NOLA's scale is c / rank
    lora_alpha: PositiveFloat = 16.0  # the text's c for LoRA
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    int8: bool = True
    epochs: PositiveInt = 1
    steps: PositiveInt | None = None  # overrides epochs
    batch_size: PositiveInt = 256
    micro_batch_size: PositiveInt = 8
    learning_rate: NonNegativeFloat | None = None  # None: the method's own
    warmup_fraction: Annotated[float, Field(ge=0, le=1)] = 0.03
    clip_norm: PositiveFloat = 0.3
    max_tokens: PositiveInt = 512  # longer examples are left out
    train_split: str = "train"
    held_out: PositiveInt = 1024  # instructions (or sources of pairs) kept for the validation loss
    evaluated: PositiveInt = 1024  # examples, each, for the training and the validation loss
    mmlu: bool = True
    shots: NonNegativeInt = 5

    def datasets(self) -> tuple[str, ...]:
        named = (self.dataset, MODELS[self.model], "mmlu" if self.mmlu else None)
        return tuple(name for name in named if name is not None)

    def needs(self) -> tuple[str, ...]:
        packages = ("package:bitsandbytes",) if self.int8 and self.model != "toy" else ()
        if self.model in BILLIONS:
            return (f"gpu-gib:{BILLIONS[self.model] + 12}", *packages)
        return packages

    def cost(self) -> Cost:
        if self.model == "toy":
            return Cost(seconds=2)
        if self.model == "smollm2":
            return Cost(seconds=12 + (0 if self.method == "none" else (self.steps or 600) * self.batch_size * 0.15))
        hours = BILLIONS[self.model] * (0.1 if self.method == "none" else 0.6)
        return Cost(
            seconds=3600 * hours, gpu_bytes=BILLIONS[self.model] + 12 << 30, disk_bytes=2 * BILLIONS[self.model] << 30
        )

    def probe(self) -> dict[str, object]:
        return {"steps": min(self.steps or 2, 2), "batch_size": 1, "evaluated": min(self.evaluated, 2)}

    def run(self, context: Context) -> Result:
        from effbook import data

        model, tokenizer = self.backbone(context.device)
        training, validation = self.examples(tokenizer)
        model = add_adapters(
            model,
            method=self.method,
            target="all",
            rank=self.rank,
            k=self.k,
            scale_c=self.scale_c,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            seed=self.seed,
        )
        count = trainable(model)
        trained = self.train(context, model, training)
        _, checkpoint_bytes = save_adapters(model, context.folder / "adapters", method=self.method)

        def loss(examples: "list[Example]") -> float:
            return mean_target_loss(model, draw(examples, self.evaluated), batch_size=self.micro_batch_size)

        metrics = {
            "train_loss": loss(training),
            "val_loss": loss(validation),
            "mmlu": None,
            "trainable": count,
            "step_ms": trained.step_ms,
            "checkpoint_bytes": checkpoint_bytes,
        }
        notes = {"sizes": f"{len(training)} instructions to train on, {len(validation)} held out."}
        if self.dataset in PAIRS:
            notes["dataset"] = (
                f"The {self.train_split} split of {self.dataset}, put as instructions, stands in for Alpaca."
            )
        if self.mmlu:
            questions = data.load_instructions("mmlu", "test")
            bar = context.progress(len(questions), "MMLU")
            examples = data.load_instructions("mmlu", "dev")
            metrics["mmlu"] = mmlu_accuracy(
                model, tokenizer, examples, questions, shots=self.shots, advance=bar.advance
            )
        else:
            notes["mmlu"] = "MMLU is in no package, so this profile leaves it out."
        return Result(metrics=metrics, series={"train_loss": trained.losses}, notes=notes)

    def backbone(self, device: str) -> "tuple[nn.Module, PreTrainedTokenizerBase]":
        """Return the pre-trained model, its base in 8 bits, and its tokenizer."""
        import torch

        # the type is that of what isn't held in 8 bits: embeddings, norms, activations
        return language_model(self.model, device=device, dtype=torch.bfloat16, int8=self.int8)

    def examples(self, tokenizer: "PreTrainedTokenizerBase") -> "tuple[list[Example], list[Example]]":
        """Return the encoded instructions to train on and those held out."""
        from effbook import data

        if self.dataset in PAIRS:
            sides = hold_out(data.load_pairs(self.dataset, self.train_split), self.held_out)
            asked = [
                [(ASK[self.dataset].format(source=p.source), text) for p in side for text in p.references]
                for side in sides
            ]
        else:
            sides = hold_out(data.load_instructions(self.dataset, self.train_split), self.held_out)
            asked = [[(i.prompt, i.response) for i in side] for side in sides]
        training, validation = (
            short_enough(tokenizer, [(TEMPLATE.format(prompt=q), a) for q, a in side], self.max_tokens)
            for side in asked
        )
        return training, validation

    def train(self, context: Context, model: "nn.Module", training: "list[Example]") -> Trained:
        """Train the adapters; without fine-tuning there is nothing to do."""
        if self.method == "none":
            return Trained()
        steps = self.steps or self.epochs * -(-len(training) // self.batch_size)
        return fit_texts(
            context,
            model,
            training,
            steps=steps,
            batch_size=self.batch_size,
            micro_batch_size=self.micro_batch_size,
            learning_rate=RATES[self.method] if self.learning_rate is None else self.learning_rate,
            weight_decay=0.0,
            warmup_steps=round(self.warmup_fraction * steps),
            schedule=warmup_then_constant,
            clip_norm=self.clip_norm,
            seed=self.seed,
        )
