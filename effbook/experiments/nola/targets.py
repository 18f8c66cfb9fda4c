"""Which layers of a network a target means: regular expressions over qualified names, by family and target."""

from typing import TYPE_CHECKING

from effbook.errors import EffbookError

if TYPE_CHECKING:
    from torch import nn

# GPT-2's two MLP layers answer to LLaMA's up and down projections (its gate has no counterpart), so that both targets
# are two layers a block. The fused q-k-v layers are to be split first (FUSED).
TARGETS = {
    "gpt2": {"qv": r".*attn\.c_attn\.(q|v)", "qkv": r".*attn\.c_attn\.(q|k|v)", "mlp": r".*mlp\.(c_fc|c_proj)"},
    "vit": {"qv": r".*attn\.qkv\.(q|v)", "qkv": r".*attn\.qkv\.(q|k|v)", "mlp": r".*mlp\.(fc1|fc2)"},
    "llama": {
        "qv": r".*self_attn\.(q|v)_proj",
        "mlp": r".*mlp\.(up|down)_proj",
        "all": r".*(self_attn\.(q|k|v|o)|mlp\.(gate|up|down))_proj",
    },
}
FUSED = {"gpt2": r".*attn\.c_attn", "vit": r".*attn\.qkv"}


def layers_of(family: str, target: str) -> str:
    """Return the regular expression of a target's layers; EffbookError where the family has none of that name."""
    if family not in TARGETS:
        raise EffbookError(f"no layers are known of the family {family!r}", f"choose one of {', '.join(TARGETS)}")
    if target not in TARGETS[family]:
        raise EffbookError(f"{family} has no target {target!r}", f"choose one of {', '.join(TARGETS[family])}")
    return TARGETS[family][target]


def split(model: "nn.Module", family: str) -> "nn.Module":
    """Take the family's fused q-k-v layers apart, in place, so that Q and V can be adapted alone; return the model."""
    from effbook.nola import split_fused

    return split_fused(model, targets=FUSED[family]) if family in FUSED else model
