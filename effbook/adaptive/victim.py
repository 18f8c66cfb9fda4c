"""What a model whose compute depends on the image shows to an attack, a defence and a bench."""

from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

from torch import Tensor

from effbook.errors import EffbookError

Execution = Literal["dropped", "masked"]


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The least and the most multiply-accumulates that an image can cost."""

    low_macs: float
    high_macs: float


@dataclass(frozen=True, kw_only=True)
class HaltingTrace:
    """A-ViT: the halting score of each patch token in each block, 0 after it has halted, and its ponder N_k + r_k."""

    scores: Tensor  # [B, L, N], the last block's is 1 for a token still alive
    ponder: Tensor  # [B, N], in 1..L + 1


@dataclass(frozen=True, kw_only=True)
class SamplingTrace:
    """ATS: at each sampling stage the scores of Eq. 4.4, the expected count, and the class token's attention."""

    scores: Tensor  # [B, S, N], 0 for a token lost before
    count_expected: Tensor  # [B, S], the sum of min(1, K scores) over the patch tokens, K samples
    attention: Tensor  # [B, S, H, N], from the class token to the patch tokens, as Eq. 4.5 wants it


@dataclass(frozen=True, kw_only=True)
class DecisionTrace:
    """AdaViT: what its decision networks keep of patches, heads and halves of blocks: 0 or 1, with a gradient."""

    patches: Tensor  # [B, L, N]
    heads: Tensor  # [B, L, H]
    blocks: Tensor  # [B, L, 2], attention and MLP


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a victim answers for B images, and what it spent on each.

    `usage` holds what one sees of its choices: `tokens` [B, L], the executed tokens of each block, and `kept`
    [B, L, N], which patch tokens are alive in it; AdaViT also `heads`, `attention` and `mlp` [B, L]. `trace` holds
    the differentiable quantities behind them, and is None under "dropped".
    """

    logits: Tensor  # [B, C]
    macs: Tensor  # [B], float64: multiply-accumulates by closed form (`effbook.evaluate.cost`)
    usage: dict[str, Tensor]
    trace: HaltingTrace | SamplingTrace | DecisionTrace | None = None


@runtime_checkable
class Victim(Protocol):
    """A model that an attack on compute can be tried on. Images are [B, 3, H, W] in 0..1; it normalises them itself."""

    def run(self, images: Tensor, execution: Execution = "dropped") -> Outcome:
        """Answer for the images: "masked" is differentiable, "dropped" leaves out what was not chosen."""

    def surrogate(self, images: Tensor) -> Tensor:
        """The expected share of the compute, in 0..1, [B], differentiable: what an attack raises."""

    def bound(self) -> Bound:
        """The least and the most that an image can cost."""


def check_run(images: Tensor, execution: str, *, image_px: tuple[int, int]) -> None:
    """Raise EffbookError unless these are images [B, 3, H, W] in 0..1 of the victim's size, run in a known way."""
    if execution not in get_args(Execution):
        raise EffbookError(f"the execution is {execution!r}", 'choose "dropped" or "masked"')
    if not images.is_floating_point() or images.ndim != 4 or not len(images):
        raise EffbookError(
            f"the images are {images.dtype} of shape {tuple(images.shape)}", "give floating point [B, 3, H, W] in 0..1"
        )
    if tuple(images.shape[1:]) != (3, *image_px):
        raise EffbookError(
            f"the images are {tuple(images.shape[1:])} and the victim takes {(3, *image_px)}", "resize them first"
        )
    low, high = images.detach().aminmax()
    if not (low >= 0 and high <= 1):  # NaN is refused, too
        raise EffbookError(
            f"the images lie in {low:.3g}..{high:.3g}", "give pixels in 0..1; the victim normalises them itself"
        )
