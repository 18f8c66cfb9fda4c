"""Parameter counts (all "# Trainable Parameters" columns of 3.2 and B.10), from our layers on the real shapes.

Nothing is trained or downloaded: the architectures are built on the meta device, adapted, and counted.
"""

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveInt

from effbook.errors import EffbookError
from effbook.experiments.nola.targets import TARGETS, layers_of, split
from effbook.experiments.shared.arithmetic import register_arithmetic
from effbook.runs.recipe import Context, Cost, Recipe, Result

if TYPE_CHECKING:
    from torch import nn

FAMILIES = {"gpt2": "gpt2", "vit": "vit", "llama2": "llama"}  # by the beginning of a model's name
FROM_SCRATCH = ("resnet20-cifar10", "resnet18-imagenet100")


@register_arithmetic
@dataclass(frozen=True, kw_only=True)
class CountRecipe(Recipe):
    """Count what a method trains on an architecture, a task's classifier not included.

    On the two ResNets, trained from scratch, every convolution and the classifier are adapted, batch norm's scale and
    shift are trained and counted, and PRANC has as many coefficients a layer as NOLA, 2 k.
    """

    system: ClassVar[str] = "nola"
    name: ClassVar[str] = "nola-count"

    model: str
    method: Literal["none", "nearest", "linear", "full", "lora", "nola", "pranc"] = "nola"
    target: Literal["qv", "qkv", "mlp", "all"] = "qv"
    rank: PositiveInt = 4
    k: PositiveInt = 1000  # = l
    k_classifier: PositiveInt = 1000  # = l, of a CNN's last layer

    def validate(self) -> None:
        if self.model in FROM_SCRATCH:
            return
        if self.family not in TARGETS:
            known = ", ".join([*FAMILIES, *FROM_SCRATCH])
            raise EffbookError(f"{self.model!r} is of no family that can be counted", f"choose one of {known}")
        layers_of(self.family, self.target)

    @property
    def family(self) -> str:
        """gpt2, vit or llama."""
        return FAMILIES.get(self.model.partition("-")[0], self.model)

    def cost(self) -> Cost:
        return Cost(seconds=5 if self.model.startswith("llama2") else 2)

    def run(self, context: Context) -> Result:
        trainable, statistics = self.count()
        return Result(metrics={"trainable": trainable, "trainable_and_statistics": trainable + statistics})

    def count(self) -> tuple[int, int]:
        """How many parameters train, and how many running statistics batch norm keeps beside them."""
        return _counted(replace(self, seed=0))

    def _count(self) -> tuple[int, int]:
        from torch import nn

        from effbook.backbones import meta
        from effbook.nola import count_parameters

        if self.method in ("none", "nearest", "linear"):
            return 0, 0
        if self.method == "full":
            model = meta(self.model).requires_grad_(True)
        else:
            model = self._scratch() if self.model in FROM_SCRATCH else self._pretrained()
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        return count_parameters(model), sum(m.running_mean.numel() + m.running_var.numel() for m in norms)

    def _pretrained(self) -> "nn.Module":
        from effbook.backbones import meta
        from effbook.nola import NOLASettings, adapt

        if self.method == "pranc":
            raise EffbookError("PRANC adapts no pretrained model in the text", "choose lora or nola")
        model, layers = split(meta(self.model), self.family), layers_of(self.family, self.target)
        if self.method == "nola":
            return adapt(model, NOLASettings(k=self.k, l=self.k, rank=self.rank), targets=layers)
        import torch
        from peft import LoraConfig, get_peft_model

        with torch.random.fork_rng(devices=[]):  # peft draws A, on the meta device too
            fan_in_fan_out = self.family == "gpt2" and self.target == "mlp"  # GPT-2's Conv1D
            config = LoraConfig(r=self.rank, target_modules=layers, fan_in_fan_out=fan_in_fan_out)
            return get_peft_model(model, config, low_cpu_mem_usage=True)

    def _scratch(self) -> "nn.Module":
        """The text's CNN: NOLA and PRANC as the experiment adapts them, on the meta device."""
        from torch import nn

        from effbook.backbones import meta
        from effbook.experiments.nola.scratch_cnn import low_rank
        from effbook.nola import NOLASettings, PRANCSettings, adapt, adapt_pranc

        model = meta(self.model)
        convolutions = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d)]
        norms = [name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
        if self.method == "lora":
            model.fc.requires_grad_(False)  # its weight is adapted, its bias stays at zero
            return low_rank(model, [*convolutions, "fc"], rank=self.rank, seed=self.seed)
        for layers, k in ((convolutions, self.k), (["fc"], self.k_classifier)):
            if self.method == "nola":
                settings = NOLASettings(k=k, l=k, rank=self.rank, init="scratch")
                adapt(model, settings, targets=layers, also_train=norms)
            else:
                adapt_pranc(model, PRANCSettings(k=2 * k), targets=layers, also_train=norms)
        return model


@functools.lru_cache(maxsize=512)
def _counted(recipe: CountRecipe) -> tuple[int, int]:
    """The tables repeat each other's rows, and each takes a second."""
    return recipe._count()
