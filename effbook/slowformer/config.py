"""The settings of the attack, its defence and the attack on a language model, without torch."""

from dataclasses import dataclass
from typing import Literal

from effbook.errors import EffbookError
from effbook.training.settings import check_choice, check_flags, check_real, check_whole

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STARTS = ("uniform", "released", "zero")


@dataclass(frozen=True, kw_only=True)
class AttackConfig:
    """How a universal patch or perturbation is optimised; the defaults are the dissertation's for A-ViT.

    `learning_rate` is in normalised space: a step of AdamW moves a pixel of channel c by about
    `learning_rate` * `std`[c] * 255 levels. `start`: "uniform" over the 256 levels (the text), "released" is uniform
    in -.5..0.5 of normalised space, "zero" is black. `noise`: AdaViT's decisions have Gumbel noise during the attack,
    as in the released code. Raises EffbookError where a value is impossible. Source: 4.1.3.2, 4.1.5.1, C.4, facts.
    """

    patch_px: int = 64  # its side; 0 is no patch
    top_px: int = 0
    left_px: int = 0
    steps: int = 1000
    batch: int = 512
    learning_rate: float = 0.2
    start: Literal["uniform", "released", "zero"] = "uniform"
    mean: tuple[float, ...] = IMAGENET_MEAN  # of the normalised space in which the rate is told
    std: tuple[float, ...] = IMAGENET_STD
    noise: bool = False
    seed: int = 0  # of the start, of the order of images and of what the victim draws

    def __post_init__(self) -> None:
        check_whole(self, 0, "patch_px", "top_px", "left_px", "steps", "seed")
        check_whole(self, 1, "batch")
        check_real(self, 0, "learning_rate")
        check_choice(self, "start", STARTS)
        check_flags(self, "noise")
        if len(self.mean) != len(self.std) or not self.std or min(self.std) <= 0:
            raise EffbookError(
                f"mean {self.mean} and std {self.std} are no normalisation",
                "give both with one number a channel, and std above 0",
            )


@dataclass(frozen=True, kw_only=True)
class DefenceConfig:
    """How a victim is trained against a growing set of patches; a new one each 20 % of an epoch.

    `attack` makes each new patch: 500 steps at a rate of 0.8 (4.1.4, C.4). Raises EffbookError where a value is
    impossible.
    """

    attack: AttackConfig = AttackConfig(steps=500, learning_rate=0.8)
    epochs: int = 1
    patches_per_epoch: int = 5
    batch: int = 128
    learning_rate: float = 1e-5
    weight_decay: float = 0.0
    seed: int = 0  # of the order of images and of the choice among patches

    def __post_init__(self) -> None:
        check_whole(self, 1, "epochs", "patches_per_epoch", "batch")
        check_whole(self, 0, "seed")
        check_real(self, 0, "learning_rate", "weight_decay")


@dataclass(frozen=True, kw_only=True)
class SuffixConfig:
    """How a universal suffix of tokens is searched for by greedy coordinate steps.

    A step looks at `prompts_per_step` prompts, lets the model write `horizon_tokens` after each, and tries `tries`
    exchanges of one token, each among the `candidates` best of its place by the gradient. Raises EffbookError where a
    value is impossible.
    """

    suffix_tokens: int = 8
    steps: int = 50
    prompts_per_step: int = 4
    horizon_tokens: int = 32
    candidates: int = 64
    tries: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole(self, 1, "suffix_tokens", "prompts_per_step", "horizon_tokens", "candidates", "tries")
        check_whole(self, 0, "steps", "seed")
