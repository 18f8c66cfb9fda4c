"""Beyond the dissertation, whose chapter 5 asks for it: a suffix that makes a language model write on.

The suffix is searched for on some prompts and judged on others.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import NonNegativeInt, PositiveInt

from effbook.errors import EffbookError
from effbook.experiments.slowformer.prompts import PROMPTS
from effbook.runs.recipe import Context, Cost, Recipe, Result, register_recipe

if TYPE_CHECKING:
    from effbook.slowformer.config import SuffixConfig


@register_recipe
@dataclass(frozen=True, kw_only=True)
class SuffixRecipe(Recipe):
    """Tokens and seconds that a model writes after unseen prompts: without a suffix, with a random and a found one.

    Metrics: `tokens_none`, `tokens_random`, `tokens_found` (means; all at most `most_tokens`), `seconds_` of the same,
    and `cut_` percent of the texts that did not end by themselves. Series: `loss`, each step's. The found suffix is an
    artifact, as token ids and text.
    """

    system: ClassVar[str] = "slowformer"
    name: ClassVar[str] = "slowformer-suffix"
    varying: ClassVar[tuple[str, ...]] = ("seconds_none", "seconds_random", "seconds_found")

    model: Literal["smollm2", "toy"] = "smollm2"
    suffix_tokens: PositiveInt = 8
    steps: NonNegativeInt = 50
    prompts_per_step: PositiveInt = 4
    horizon_tokens: PositiveInt = 32
    candidates: PositiveInt = 64
    tries: PositiveInt = 32
    train_prompts: PositiveInt = 16
    test_prompts: PositiveInt = 16
    most_tokens: PositiveInt = 256

    def validate(self) -> None:
        if self.train_prompts + self.test_prompts > len(PROMPTS):
            raise EffbookError(
                f"{self.train_prompts} prompts to search on and {self.test_prompts} to judge on are asked for of "
                f"{len(PROMPTS)}",
                "choose fewer",
            )

    def datasets(self) -> tuple[str, ...]:
        return () if self.model == "toy" else ("smollm2-135m",)

    def cost(self) -> Cost:
        if self.model == "toy":
            return Cost(seconds=2)
        written = self.steps * self.prompts_per_step * self.horizon_tokens + 3 * self.test_prompts * self.most_tokens
        tried = self.steps * self.prompts_per_step * self.tries * (40 + self.horizon_tokens)
        return Cost(seconds=10 + written / 15 + tried / 1500)

    def probe(self) -> dict[str, object]:
        few = {"train_prompts": 2, "test_prompts": 2, "most_tokens": 8, "steps": 1, "horizon_tokens": 4, "tries": 4}
        return {name: min(value, getattr(self, name)) for name, value in few.items()}

    def config(self) -> "SuffixConfig":
        """The library's settings of the search."""
        from effbook.slowformer.config import SuffixConfig

        names = ("suffix_tokens", "steps", "prompts_per_step", "horizon_tokens", "candidates", "tries", "seed")
        return SuffixConfig(**{name: getattr(self, name) for name in names})

    def run(self, context: Context) -> Result:
        import json
        import statistics

        import torch

        from effbook.backbones.language import smollm2, toy_lm
        from effbook.slowformer import chat_prompts, find_suffix, measure_suffix, random_suffix
        from effbook.training.seeds import generator

        model, tokenizer = smollm2(device=context.device) if self.model == "smollm2" else toy_lm()
        order = torch.randperm(len(PROMPTS), generator=generator(self.seed)).tolist()
        prompts = chat_prompts(tokenizer, [PROMPTS[i] for i in order])
        train, test = prompts[: self.train_prompts], prompts[-self.test_prompts :]
        banned, config = tokenizer.all_special_ids, self.config()
        bar = context.progress(self.steps, "search a suffix")
        found = find_suffix(
            model, train, config=config, banned=banned, watch=lambda step, loss, _: bar.advance(1, loss=loss)
        )
        suffixes = {
            "none": torch.empty(0, dtype=torch.long),
            "random": random_suffix(model, config=config, banned=banned),
            "found": found.suffix,
        }
        metrics: dict[str, float] = {}
        for name, suffix in suffixes.items():
            written = measure_suffix(model, test, suffix, most_tokens=self.most_tokens)
            metrics[f"tokens_{name}"] = statistics.fmean(written.tokens)
            metrics[f"seconds_{name}"] = statistics.fmean(written.seconds)
            metrics[f"cut_{name}"] = 100 * statistics.fmean(count >= self.most_tokens for count in written.tokens)
        file = context.folder / "suffix.json"
        ids = found.suffix.tolist()
        file.write_text(json.dumps({"ids": ids, "text": tokenizer.decode(ids)}), encoding="utf-8")
        return Result(
            metrics=metrics, series={"loss": found.losses} if found.losses else {}, artifacts={"suffix.json": file}
        )
