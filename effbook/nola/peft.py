"""NOLA as a method of the `peft` library: `get_peft_model(model, NOLAConfig(...))` and all that goes with it.

Importing this module registers the method; import it before `PeftModel.from_pretrained` reads a NOLA adapter. The
arithmetic is that of `effbook.nola.layer`; here is only what `peft` asks of a method. What `save_pretrained` ships are
the coefficients and the config with its seed.
"""

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
from effbook.nola.basis import Basis, generate, stream_of
from effbook.nola.config import NOLASettings
from effbook.nola.factors import SharedBasis
from effbook.nola.layer import (
    _require_floating,
    add_low_rank,
    add_to_weight,
    device_of,
    is_conv1d,
    is_linear,
    matrix_shape,
)
from effbook.nola.peft_factors import PeftFactors, PeftSharedBasis
from effbook.nola.peft_weighted import weighted

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


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
    architecture. `bias`: none, all or nola_only. With `init_weights` False, as elsewhere in peft, the coefficients
    start at random numbers, after `torch.initial_seed()`: for tests. Raises EffbookError for an impossible value.
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
    init_weights: bool = True
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


class BrokenAdapterError(EffbookError, ValueError):
    """An adapter that isn't finite; a ValueError, too, as peft's methods raise one."""


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

    def add(self, adapter: str, config: NOLAConfig, name: str, shared: SharedBasis | None) -> None:
        """Put another adapter here; `name` is the layer's name in the base model."""
        base = self.get_base_layer()
        _, dtype = self._get_base_layer_device_and_dtype(base)  # peft casts to float32 later, where it is asked to
        place = {"device": device_of(base), "dtype": dtype if dtype in DTYPES else torch.float32}
        size = (self.in_features, self.out_features)
        new = PeftFactors(*size, settings=config.settings(), name=name, shared=shared, **place)
        if not config.init_weights:
            for side, p in (("A", new.alpha), ("B", new.beta)):
                stream = stream_of(f"{torch.initial_seed()}/{name}/{side}")
                row = Basis(seed=config.seed, stream=stream, count=1, rows=1, cols=p.numel(), bound=1.0)
                p.data.copy_(generate(row, device=p.device).view(-1))
        self.nola_factors[adapter] = new

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
        """Add the adapters' changes to the base weight, in its dtype; `safe_merge` first looks for nan and inf there.

        Raises EffbookError for a quantised base layer, and BrokenAdapterError for a sum that isn't finite.
        """
        base = self.get_base_layer()
        for adapter in check_adapters_to_merge(self, adapter_names):
            if adapter in self.nola_factors:
                delta = self.get_delta_weight(adapter)
                if safe_merge and not torch.isfinite((_require_floating(base) + delta).to(base.weight.dtype)).all():
                    cause = f"NaNs detected in the merged weights. The adapter {adapter} seems to be broken"  # peft's
                    raise BrokenAdapterError(cause, "look for the step at which it diverged")
                add_to_weight(base, delta)
                self.merged_adapters.append(adapter)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take the changes out again, exact to rounding."""
        while self.merged_adapters:
            add_to_weight(self.get_base_layer(), -self.get_delta_weight(self.merged_adapters.pop()))

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        return True

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
            shared[adapter] = PeftSharedBasis()
            shared[adapter].follow(self.model)
        return shared[adapter]

    def _create_and_replace(
        self, peft_config, adapter_name, target, target_name, parent, current_key, **optional_kwargs
    ) -> None:
        # A second adapter, too, is named after the layer in the base model, so that its basis doesn't depend on others
        name = current_key.replace(".base_layer", "")
        shared = self._shared(adapter_name, peft_config.settings())
        if isinstance(target, NOLAPeftLinear):
            target.add(adapter_name, peft_config, name, shared)
            return
        base = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
        if not is_linear(base):
            raise EffbookError(f"{current_key} is a {type(base).__name__}", "name linear layers in target_modules")
        new = NOLAPeftLinear(target)
        new.add(adapter_name, peft_config, name, shared)
        new.set_adapter(self.active_adapters)
        if adapter_name not in self.active_adapters:
            new.requires_grad_(False)  # a further adapter doesn't train before it is chosen
        self._replace_module(parent, target_name, new, target)

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, adapter_names: Any = None, **kwargs: Any) -> Iterator[None]:
        if adapter_names is not None:
            raise EffbookError("NOLA has no batches of mixed adapters", "call the model once for each adapter")
        yield

    def _check_merge_allowed(self) -> None:
        """Give a head that is tied to the embedding a weight of its own: a merge changes the head alone."""
        owners = Counter(id(p) for module in self.model.modules() for p in module._parameters.values())
        for name, layer in self.model.named_modules():
            base = layer.get_base_layer() if isinstance(layer, NOLAPeftLinear) else None
            if base is not None and owners[id(getattr(base, "weight", None))] > 1:
                base.weight = nn.Parameter(base.weight.detach().clone(), requires_grad=False)
                if getattr(getattr(self.model, "config", None), "tie_word_embeddings", False):
                    self.model.config.tie_word_embeddings = False
                warnings.warn(f"{name} was tied to another layer; it has a weight of its own now", stacklevel=2)

    def add_weighted_adapter(self, adapters: Sequence[str], weights: Sequence[float], adapter_name: str) -> None:
        """Add an adapter, not active yet, whose change of every layer is exactly the weighted sum of the given ones'.

        There is one where at each layer one of them stands alone or all agree but for alpha or beta
        (`effbook.nola.peft_weighted`). Raises EffbookError, before anything is changed, where there is none; adapters
        that are active together add up always.
        """
        configs = self.peft_config
        if unknown := [name for name in adapters if name not in configs]:
            raise EffbookError(f"There is no adapter {unknown[0]}", f"choose from {', '.join(configs)}")
        if adapter_name in configs:
            raise EffbookError(f"There is an adapter {adapter_name} already", "choose another name or delete it first")
        if not adapters or len(adapters) != len(weights) or not all(map(math.isfinite, weights)):
            raise EffbookError(f"Weights {list(weights)} for adapters {list(adapters)}", "give each a finite weight")
        if more := [name for name in adapters if configs[name].modules_to_save or configs[name].bias != "none"]:
            cause = f"Adapter {more[0]} trains other parameters beside NOLA's, which have no weighted sum"
            raise EffbookError(cause, "combine adapters without modules_to_save and bias")
        layers = {name: m.nola_factors for name, m in self.model.named_modules() if isinstance(m, NOLAPeftLinear)}
        found = weighted(layers, adapters, weights)
        everywhere = {"exclude_modules": None, "layers_to_transform": None, "layers_pattern": None}
        configs[adapter_name] = replace(configs[adapters[0]], target_modules=set(found), bits=None, **everywhere)
        self.inject_adapter(self.model, adapter_name)
        for name, (alpha, beta) in found.items():
            like = next(layers[name][one].alpha.dtype for one in adapters if one in layers[name])
            new = layers[name][adapter_name].to(like)
            new.alpha.data.copy_(alpha)
            new.beta.data.copy_(beta)

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
