"""Data-to-text with a pre-trained language model (3.2.4.1, 3.2.4.2, B.10.1; Tables 3.10 to 3.13 and B.13).

LoRA or NOLA in the attention's Q and V or in the MLP; coefficients of full precision, quantised after training, or
trained quantised. The texts are judged by the E2E challenge's metrics and, less noisily, by the model's own loss.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from effbook.errors import EffbookError
from effbook.experiments.nola.adapters import (
    add_adapters,
    language_model,
    load_adapters,
    quantise_adapters,
    save_adapters,
)
from effbook.experiments.nola.text_batches import draw, encode, hold_out, mean_target_loss, short_enough, write_texts
from effbook.experiments.nola.text_training import Trained, fit_texts
from effbook.experiments.shared.training import trainable
from effbook.runs.recipe import Context, Cost, Recipe, Result, register_recipe

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from effbook.data.text import Pair
    from effbook.experiments.nola.text_batches import Example

MODELS = {"gpt2-m": "gpt2-medium", "gpt2-l": "gpt2-large", "smollm2": "smollm2-135m", "toy": None}  # -> manifest
Bits = Literal[16, 8, 4, 3, 2]
METRICS = ("bleu", "nist", "meteor", "rouge_l", "cider", "ter")
RATES = {"none": 0.0, "full": 5e-5, "lora": 2e-4, "nola": 0.1}  # LoRA's and full tuning's are those of their papers
DECAYS = {"none": 0.0, "full": 0.0, "lora": 0.01, "nola": 0.0}


@register_recipe
@dataclass(frozen=True, kw_only=True)
class LanguageRecipe(Recipe):
    """Fine-tune on pairs of data and text; the defaults are the dissertation's protocol for GPT-2 M.

    The text gives NOLA's values; "for all hyperparameters except learning rate" LoRA's are taken, which are those of
    the LoRA paper's code. None for learning rate and weight decay: the method's own. None for a count: all of them.
    """

    system: ClassVar[str] = "nola"
    name: ClassVar[str] = "nola-language"
    varying: ClassVar[tuple[str, ...]] = ("step_ms", "memory_bytes")

    model: Literal["gpt2-m", "gpt2-l", "smollm2", "toy"] = "gpt2-m"
    dataset: Literal["e2e", "webnlg", "dart", "toy-pairs"] = "e2e"
    method: Literal["none", "full", "lora", "nola"] = "nola"
    target: Literal["qv", "mlp"] = "qv"
    rank: PositiveInt = 8
    k: PositiveInt = 1000  # = l
    scale_c: PositiveFloat = 1.0  # NOLA's scale is c / rank
    lora_alpha: PositiveFloat = 32.0  # LoRA's scale is alpha / rank
    shared_basis: bool = False
    qat_bits: Bits | None = None  # quantisation-aware training
    ptq_bits: Bits | None = None  # quantisation after training
    epochs: PositiveInt = 5
    steps: PositiveInt | None = None  # overrides epochs
    batch_size: PositiveInt = 8
    learning_rate: NonNegativeFloat | None = None
    weight_decay: NonNegativeFloat | None = None
    warmup_steps: NonNegativeInt = 500
    label_smoothing: NonNegativeFloat = 0.1
    beams: PositiveInt = 10
    length_penalty: float = 0.8
    no_repeat_ngram: NonNegativeInt = 4
    max_new_tokens: PositiveInt = 64
    max_tokens: PositiveInt = 512  # longer pairs are left out of training and of the loss; none is left out of the test
    train_split: str = "train"
    validation_split: str = "dev"  # where both are one split, `held_out` of its sources are for validation
    held_out: PositiveInt = 100
    validation_pairs: PositiveInt | None = None
    test_inputs: PositiveInt | None = None
    eval_batch_size: PositiveInt = 32
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the base; coefficients are float32
    metrics: tuple[str, ...] = METRICS
    keep_adapters: bool = True  # beside the record

    def validate(self) -> None:
        for field in ("qat_bits", "ptq_bits"):
            if getattr(self, field) is not None and self.method not in ("lora", "nola"):
                raise EffbookError(
                    f"{field} is {getattr(self, field)} with method {self.method}", "quantise lora or nola"
                )
        if unknown := set(self.metrics) - set(METRICS):
            raise EffbookError(f"metrics holds {', '.join(sorted(unknown))}", f"choose among {', '.join(METRICS)}")
        if self.qat_bits and self.ptq_bits:
            raise EffbookError("both qat_bits and ptq_bits are given", "choose one")

    def datasets(self) -> tuple[str, ...]:
        weights = MODELS[self.model]
        return (self.dataset,) if weights is None else (self.dataset, weights)

    def needs(self) -> tuple[str, ...]:
        return ("gpu-gib:40",) if self.model.startswith("gpt2-") else ()

    def cost(self) -> Cost:
        if self.model == "toy":
            return Cost(seconds=2)
        if self.model == "smollm2":
            steps = 0 if self.method == "none" or self.depends() else self.steps or 3000 * self.epochs
            return Cost(seconds=15 + steps * self.batch_size * (0.4 if self.method == "full" else 0.15))
        size = 2 if self.model == "gpt2-l" else 1  # reported: 0.78 s a step of GPT-2 L on an RTX 6000 Ada
        training = 0 if self.depends() else 5300 * self.epochs * 0.4 * size
        return Cost(seconds=training + 1800 * size, gpu_bytes=size * 18 << 30, disk_bytes=size * 2 << 30)

    def depends(self) -> tuple[Recipe, ...]:
        return (replace(self, ptq_bits=None),) if self.ptq_bits and self.keep_adapters else ()

    def probe(self) -> dict[str, object]:
        steps = 2 if self.steps is None else min(self.steps, 2)  # where bfloat16 is emulated, a token takes 0.1 s
        return {
            "steps": steps,
            "warmup_steps": min(self.warmup_steps, steps // 2),
            "batch_size": 1,
            "validation_pairs": 2,
            "test_inputs": 1,
            "max_new_tokens": min(self.max_new_tokens, 4),
        }

    def run(self, context: Context) -> Result:
        from effbook import data
        from effbook.evaluate import text

        model, tokenizer = self.backbone(context.device)
        training, validation = self.examples(tokenizer)
        test = draw(data.load_pairs(self.dataset, "test"), self.test_inputs)

        model = self.adapted(model)
        count = trainable(model)
        if self.ptq_bits:
            trained = self.take_over(context, model, training)
            quantise_adapters(model, context.folder / "quantised", method=self.method, bits=self.ptq_bits)
        else:
            trained = self.train(context, model, training)
        bits = self.ptq_bits or self.qat_bits
        file, checkpoint_bytes = save_adapters(model, context.folder / "adapters", method=self.method, bits=bits)

        val_loss = mean_target_loss(model, validation, batch_size=self.eval_batch_size)
        bar = context.progress(len(test), "write texts")
        hypotheses = write_texts(
            model,
            tokenizer,
            [e.prompt for e in encode(tokenizer, [(self.prompt(pair), "") for pair in test])],
            batch_size=self.eval_batch_size,
            max_new_tokens=self.max_new_tokens,
            beams=self.beams,
            length_penalty=self.length_penalty,
            no_repeat_ngram=self.no_repeat_ngram,
            advance=bar.advance,
        )
        references = [pair.references for pair in test]
        scores = {name: text.METRICS[name](hypotheses, references) for name in self.metrics}
        missing = {name: why for name, why in text.available().items() if name in self.metrics and why}
        metrics = {
            **scores,
            "val_loss": val_loss,
            "trainable": count,
            "memory_bytes": trained.memory_bytes,
            "step_ms": trained.step_ms,
            "checkpoint_bytes": checkpoint_bytes,
        }
        keep = self.keep_adapters and file is not None and bits is None
        return Result(
            metrics=metrics,
            series={"train_loss": trained.losses},
            artifacts={"adapters": file} if keep else {},
            notes=self.notes(training, validation, test) | missing,
        )

    def backbone(self, device: str) -> "tuple[nn.Module, PreTrainedTokenizerBase]":
        """Return the pre-trained model and its tokenizer."""
        import torch

        return language_model(self.model, device=device, dtype=getattr(torch, self.dtype))

    def adapted(self, model: "nn.Module") -> "nn.Module":
        """Return the model with just the method's parameters trainable."""
        return add_adapters(
            model,
            method=self.method,
            target=self.target,
            rank=self.rank,
            k=self.k,
            scale_c=self.scale_c,
            lora_alpha=self.lora_alpha,
            shared_basis=self.shared_basis,
            qat_bits=self.qat_bits,
            seed=self.seed,
        )

    def prompt(self, pair: "Pair") -> str:
        """The data as the model reads it; GPT-2's as in the LoRA paper's code, with an end of text in between."""
        return pair.source + ("<|endoftext|>" if self.model.startswith("gpt2-") else "\n")

    def examples(self, tokenizer: "PreTrainedTokenizerBase") -> "tuple[list[Example], list[Example]]":
        """Return the encoded pairs to train on and to validate with, each reference an example of its own."""
        from effbook.data import load_pairs

        training = load_pairs(self.dataset, self.train_split)
        if self.validation_split == self.train_split:
            training, validation = hold_out(training, self.held_out)
        else:
            validation = load_pairs(self.dataset, self.validation_split)
        space = " " if self.model.startswith("gpt2-") else ""
        training, validation = (
            short_enough(
                tokenizer,
                [(self.prompt(p), space + reference) for p in pairs for reference in p.references],
                self.max_tokens,
            )
            for pairs in (training, validation)
        )
        return training, draw(validation, self.validation_pairs)

    def train(self, context: Context, model: "nn.Module", training: "list[Example]") -> Trained:
        """Train the adapters; without any (method none) there is nothing to do."""
        if self.method == "none":
            return Trained()
        return fit_texts(
            context,
            model,
            training,
            steps=self.steps or self.epochs * -(-len(training) // self.batch_size),
            batch_size=self.batch_size,
            learning_rate=RATES[self.method] if self.learning_rate is None else self.learning_rate,
            weight_decay=DECAYS[self.method] if self.weight_decay is None else self.weight_decay,
            warmup_steps=self.warmup_steps,
            label_smoothing=self.label_smoothing,
            seed=self.seed,
        )

    def take_over(self, context: Context, model: "nn.Module", training: "list[Example]") -> Trained:
        """Give the model the coefficients of the same recipe without quantisation; if that keeps none, train here."""
        base = replace(self, ptq_bits=None)
        if not base.keep_adapters:
            return base.train(context, model, training)
        record = context.record_of(base)
        load_adapters(model, record.artifact("adapters"), method=self.method)
        return Trained(
            losses=list(record.series["train_loss"]),
            step_ms=record.metrics["step_ms"],
            memory_bytes=record.metrics["memory_bytes"],
        )

    def notes(self, training: list, validation: list, test: list) -> dict[str, str]:
        """What a reader of the record should know about the data."""
        said = {"sizes": f"{len(training)} pairs to train on, {len(validation)} for the loss, {len(test)} test inputs."}
        if self.train_split == self.validation_split:
            said["split"] = (
                f"Trained on the {self.train_split} split of {self.dataset}; {self.held_out} of its sources are held "
                "out for the validation loss. The test split is untouched."
            )
        return said
