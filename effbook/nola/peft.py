"""NOLA as a method of the `peft` library: `get_peft_model(model, NOLAConfig(...))` and all that goes with it.

Importing this module registers the method; import it before `PeftModel.from_pretrained` reads a NOLA adapter. The
arithmetic is that of `effbook.nola.layer`; here is only what `peft` asks of a method. What `save_pretrained` ships are
the coefficients and the config with its seed.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_adapters_to_merge
from peft.utils import (
    TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
    PeftType,
    register_peft_method,
)
from torch import Tensor, nn

from effbook.errors import EffbookError
from effbook.nola.config import NOLASettings
from effbook.nola.factors import Factors, SharedBasis
from effbook.nola.layer import (
    add_low_rank,
    add_to_weight,
    compute_dtype,
    device_of,
    is_conv1d,
    is_linear,
    matrix_shape,
)


def _add_peft_type(name: str) -> PeftType:
    """`register_peft_method` takes only names in the PeftType enumeration, which has no way to grow: add ours."""
    if name not in PeftType.__members__:
        member = str.__new__(PeftType, name)
        member._name_, member._value_ = name, name
        setattr(PeftType, name, member)
        PeftType._member_map_[name] = member
        PeftType._member_names_.append(name)
        PeftType._value2member_map_[name] = member
        if hasattr(PeftType, "_hashable_values_"):  # Python 3.13
            PeftType._hashable_values_.append(name)
    return PeftType(name)


@dataclass
class NOLAConfig(PeftConfig):
    """NOLA's settings (`effbook.nola.NOLASettings`, with the rank called r as in LoraConfig) and where they apply.

    `target_modules` as for LoRA: a list of name endings or one regular expression; None takes LoRA's choice for the
    architecture. `bias`: none, all or nola_only. Raises EffbookError for an impossible value.
    """

    r: int = 8
    k: int = 1000
    l: int = 1000  # noqa: E741  the text's letter
    scale_c: float = 1.0
    seed: int = 0
    init: str = "language"
    shared_basis: bool | None = None
    regenerate: bool = False
    chunk: int = 64
    bits: int | None = None
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    bias: str = "none"
    fan_in_fan_out: bool = field(default=False, metadata={"help": "accepted as in LoraConfig; found out by itself"})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType.NOLA
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)
        if isinstance(self.exclude_modules, list):
            self.exclude_modules = set(self.exclude_modules)
        if self.init == "scratch":
            raise EffbookError("A peft adapter can't train from scratch", "use effbook.nola.adapt for init scratch")
        if self.bias not in ("none", "all", "nola_only"):
            raise EffbookError(f"There is no bias choice {self.bias!r}", "choose none, all or nola_only")
        self.shared_basis = self.settings().shared_basis

    def settings(self) -> NOLASettings:
        """The library's own settings."""
        names = ("k", "l", "scale_c", "seed", "init", "shared_basis", "regenerate", "chunk", "bits")
        return NOLASettings(rank=self.r, **{name: getattr(self, name) for name in names})


class NOLAPeftLinear(nn.Module, BaseTunerLayer):
    """A linear layer (nn.Linear, Conv1D, or quantised) with any number of NOLA adapters beside it."""

    adapter_layer_names = ("nola_factors",)

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = matrix_shape(base_layer)
        self.nola_factors = nn.ModuleDict()
        self.merged_adapters: list[str] = []
        self._disable_adapters = False

    def add(self, adapter: str, settings: NOLASettings, name: str, shared: SharedBasis | None) -> None:
        """Put another adapter here; `name` is the layer's name in the base model."""
        base = self.get_base_layer()
        place = {"device": device_of(base), "dtype": compute_dtype(base)}
        size = (self.in_features, self.out_features)
        self.nola_factors[adapter] = Factors(*size, settings=settings, name=name, shared=shared, **place)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters and self.merged:
            self.unmerge()
        y = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return y
        for adapter in self.active_adapters:
            if adapter in self.nola_factors:
                factors = self.nola_factors[adapter]
                y = add_low_rank(y, x, *factors(), factors.scale)
        return y

    def get_delta_weight(self, adapter: str) -> Tensor:
        """scale * A B as the base layer lays out its weight."""
        a, b = self.nola_factors[adapter]()
        delta = (a @ b) * self.nola_factors[adapter].scale
        return delta if is_conv1d(self.get_base_layer()) else delta.T

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the adapters' changes to the base weight, in its dtype; `safe_merge` first looks for nan and inf.

        Raises EffbookError for a quantised base layer, and for a change that isn't finite.
        """
        for adapter in check_adapters_to_merge(self, adapter_names):
            if adapter in self.nola_factors:
                delta = self.get_delta_weight(adapter)
                if safe_merge and not torch.isfinite(delta).all():
                    raise EffbookError(f"Adapter {adapter} holds nan or inf", "look for the step at which it diverged")
                add_to_weight(self.get_base_layer(), delta)
                self.merged_adapters.append(adapter)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take the changes out again, exact to rounding."""
        while self.merged_adapters:
            add_to_weight(self.get_base_layer(), -self.get_delta_weight(self.merged_adapters.pop()))

    def __repr__(self) -> str:
        return "nola." + super().__repr__()


class NOLAModel(BaseTuner):
    """A model with NOLA adapters; made by `peft.get_peft_model`."""

    prefix = "nola_"
    tuner_layer_cls = NOLAPeftLinear
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    def _shared(self, adapter: str, settings: NOLASettings) -> SharedBasis | None:
        if not settings.shared_basis:
            return None
        shared = self.__dict__.setdefault("nola_shared", {})
        if adapter not in shared:
            shared[adapter] = SharedBasis()
            shared[adapter].follow(self.model)
        return shared[adapter]

    def _create_and_replace(
        self, peft_config, adapter_name, target, target_name, parent, current_key, **optional_kwargs
    ) -> None:
        settings = peft_config.settings()
        # A second adapter, too, is named after the layer in the base model, so that its basis doesn't depend on others
        name = current_key.replace(".base_layer", "")
        shared = self._shared(adapter_name, settings)
        if isinstance(target, NOLAPeftLinear):
            target.add(adapter_name, settings, name, shared)
            return
        base = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
        if not is_linear(base):
            raise EffbookError(f"{current_key} is a {type(base).__name__}", "name linear layers in target_modules")
        new = NOLAPeftLinear(target)
        new.add(adapter_name, settings, name, shared)
        new.set_adapter(self.active_adapters)
        if adapter_name not in self.active_adapters:
            new.requires_grad_(False)  # a further adapter doesn't train before it is chosen
        self._replace_module(parent, target_name, new, target)

    def delete_adapter(self, adapter_name: str) -> None:
        super().delete_adapter(adapter_name)
        if (shared := self.__dict__.get("nola_shared", {}).pop(adapter_name, None)) is not None:
            shared.release()

    def _unload_and_optionally_merge(self, *args: Any, **kwargs: Any) -> nn.Module:
        model = super()._unload_and_optionally_merge(*args, **kwargs)
        for shared in self.__dict__.pop("nola_shared", {}).values():
            shared.release()
        return model


_add_peft_type("NOLA")
register_peft_method(name="nola", config_cls=NOLAConfig, model_cls=NOLAModel, prefix=NOLAModel.prefix)
