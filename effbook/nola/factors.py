"""NOLA's A and B out of coefficients and a random basis (Eq. 3.1): the arithmetic that every NOLA layer shares.

Two matters decide what a training step costs here.

- *Held or regenerated.* A held basis [k, m*r] is one matrix, and A one product alpha @ basis. Drawing it is a matter of
  the seed alone, so it isn't part of any state: it is made at first use on whatever device the coefficients are, and
  made again when they move. Regenerated, `effbook.nola.basis.combine` draws it in chunks and keeps nothing.
- *Shared or per layer.* Layers that share a basis share one held matrix (a smaller layer takes its beginning), and
  `SharedBasis` computes the A (and B) of all layers as one product [L, k] @ [k, m*r] when the model's forward begins.
  The basis, too large for a cache, is then read once a pass and not once a layer; that makes NOLA as cheap as LoRA.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from effbook.nola.basis import Basis, combine, generate, stream_of
from effbook.nola.config import NOLASettings
from effbook.nola.quantise import fake_quantise

SIDES = ("A", "B")


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype that A and B are summed in: float64 for float64, else float32 (bfloat16 would eat small steps)."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def full_precision(device: torch.device) -> AbstractContextManager:
    """No autocast: it would cast the whole basis in every step, and the sum over it would lose small steps."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def _hold(basis: Basis, like: Tensor) -> Tensor:
    """The basis as a matrix [count, rows * cols]."""
    with torch.inference_mode(False), torch.no_grad():  # it must outlive an inference_mode in which it was first needed
        return generate(basis, dtype=like.dtype, device=like.device).reshape(basis.count, -1)


class Factors(nn.Module):
    """A [m, r] and B [r, n] from alpha [k] and beta [l]; `forward()` gives (A, B), differentiable in the coefficients.

    `rows`, `cols` are m and n of W [m, n] (y = x W); `fan_in` matters for `scratch` only. `name` is the layer's
    qualified name: it picks the streams of the basis (unless shared), of A0 and of the first coefficients of `scratch`.
    Source: Eq. 3.1; starts as in `NOLASettings`.
    """

    def __init__(
        self,
        rows: int,
        cols: int,
        *,
        settings: NOLASettings,
        name: str,
        fan_in: int | None = None,
        shared: "SharedBasis | None" = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        s = self.settings = settings
        self.rows, self.cols, self.name = rows, cols, name
        self.alpha = nn.Parameter(torch.empty(s.k, device=device, dtype=dtype))
        self.beta = nn.Parameter(torch.empty(s.l, device=device, dtype=dtype))
        owner = "shared" if s.shared_basis else name
        # The stored basis is uniform(-1, 1); its bound multiplies the coefficients, which are few. So layers whose
        # kaiming bounds differ can still share one basis.
        self.basis = {
            "A": Basis(seed=s.seed, stream=stream_of(f"{owner}/A"), count=s.k, rows=rows, cols=s.rank, bound=1.0),
            "B": Basis(seed=s.seed, stream=stream_of(f"{owner}/B"), count=s.l, rows=s.rank, cols=cols, bound=1.0),
        }
        kaiming = (18.0 / ((fan_in or rows) * s.rank)) ** 0.25
        self.bound = {
            "language": {"A": s.k**-0.5, "B": s.l**-0.5},
            "vision": {"A": rows**-0.5, "B": s.rank**-0.5},  # kaiming-uniform with a = sqrt 5 is 1/sqrt(fan in)
            # Var(AB) = r Var(A) Var(B), Var(A) = |alpha|^2 bound^2 / 3 = bound^2 / 3, wanted: 2 / fan_in
            "scratch": {"A": kaiming, "B": kaiming},
        }[s.init]
        self._held: dict[str, Tensor] = {}
        self._offset: Tensor | None = None
        self._memo: tuple[Tensor, Tensor, Tensor, Tensor] | None = None
        self.shared = shared
        if shared is not None:
            shared.register(self)
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Set the coefficients to their start. No global random state is read or moved."""
        for side, p in (("A", self.alpha), ("B", self.beta)):
            if self.settings.init == "language":
                p.zero_()
            elif self.settings.init == "vision":
                p.fill_(1.0 / p.numel())
            else:  # scratch: a random direction of norm 1. The text doesn't say how training from scratch starts
                start = stream_of(f"{self.name}/{side}/coefficients")
                row = Basis(seed=self.settings.seed, stream=start, count=1, rows=1, cols=p.numel(), bound=1.0)
                p.copy_(nn.functional.normalize(generate(row, device=p.device).view(-1), dim=0))

    @property
    def scale(self) -> float:
        return self.settings.scale

    def coefficients(self, side: str) -> Tensor:
        """alpha or beta, rounded if training is quantisation-aware, times the basis's bound, in the summing dtype."""
        c = self.alpha if side == "A" else self.beta
        if self.settings.bits is not None:
            c = fake_quantise(c, self.settings.bits)
        return c.to(_wide(c.dtype)) * self.bound[side]

    def offset(self, like: Tensor) -> Tensor:
        """A0 [m, r], frozen, kaiming-uniform (a = sqrt 5), drawn from the seed and never stored in a checkpoint."""
        if self._offset is None or self._offset.device != like.device or self._offset.dtype != like.dtype:
            stream = stream_of(f"{self.name}/A0")
            one = Basis(
                seed=self.settings.seed,
                stream=stream,
                count=1,
                rows=self.rows,
                cols=self.settings.rank,
                bound=self.rows**-0.5,
            )
            self._offset = _hold(one, like).view(self.rows, self.settings.rank)
        return self._offset

    def combined(self, side: str) -> Tensor:
        """sum_i c_i A_i (Eq. 3.1) of this layer alone, flat [m*r] or [r*n]."""
        c, basis = self.coefficients(side), self.basis[side]
        if self.settings.regenerate:
            return combine(c, basis, chunk=self.settings.chunk).reshape(-1)
        if self.shared is not None:
            return c @ self.shared.held(side, c)[:, : basis.numel]
        held = self._held.get(side)
        if held is None or held.device != c.device or held.dtype != c.dtype:
            held = self._held[side] = _hold(basis, c)
        return c @ held

    def forward(self) -> tuple[Tensor, Tensor]:
        """(A [m, r], B [r, n]) of Eq. 3.1, A with its offset."""
        # On the CPU, evaluation keeps A and B as long as the coefficients don't change (compared by value, as in-place
        # writes through .data leave no trace): writing text calls a layer once a word.
        remember = not torch.is_grad_enabled() and self.alpha.device.type == "cpu"
        if remember and (memo := self._memo) is not None:
            fits = memo[0].dtype == self.alpha.dtype and torch.equal(memo[0], self.alpha)
            if fits and torch.equal(memo[1], self.beta):
                return memo[2], memo[3]
        with full_precision(self.alpha.device):
            flat = self.shared.ready(self) if self.shared is not None else None
            a, b = flat if flat is not None else (self.combined("A"), self.combined("B"))
            a, b = a.view(self.rows, self.settings.rank), b.view(self.settings.rank, self.cols)
            if self.settings.init == "language":
                a = a + self.offset(a)
        self._memo = (self.alpha.detach().clone(), self.beta.detach().clone(), a, b) if remember else None
        return a, b

    def __getstate__(self):
        # Nothing that the seed gives again travels into a copy or a pickle.
        return self.__dict__ | {"_held": {}, "_offset": None, "_memo": None}

    def extra_repr(self) -> str:
        s = self.settings
        return f"m={self.rows}, n={self.cols}, rank={s.rank}, k={s.k}, l={s.l}, init={s.init}"


class SharedBasis:
    """One basis for many layers, held once, and the A and B of all of them as one product a step.

    `follow(model)` lets the product happen as the model's forward begins, before any layer runs. (Gradient
    checkpointing, which runs layers a second time, then sees it as a constant input.) A layer called in any other way
    computes its own A and B from the same held basis: equal, only slower.
    """

    def __init__(self) -> None:
        self.members: list[Factors] = []
        self._held: dict[tuple, Tensor] = {}
        self._ready: dict[int, tuple[Tensor, Tensor]] = {}
        self._running = False
        self._hooks: list = []

    def register(self, factors: Factors) -> None:
        self.members.append(factors)

    def follow(self, model: nn.Module) -> None:
        """Compute the members' A and B whenever `model` is called."""
        # Bound methods, not lambdas: a deep copy of the model then gets hooks to its own shared basis.
        self._hooks.append(model.register_forward_pre_hook(self._begin))
        self._hooks.append(model.register_forward_hook(self._end, always_call=True))

    def release(self) -> None:
        """Follow no model any more, and let go of what was held."""
        while self._hooks:
            self._hooks.pop().remove()
        self.members, self._held, self._ready = [], {}, {}

    def held(self, side: str, like: Tensor) -> Tensor:
        """The basis [k, largest m*r] on like's device, in its dtype."""
        widest = max((m.basis[side] for m in self.members), key=lambda basis: basis.numel)
        held = self._held.get((side, like.device, like.dtype))
        if held is None or held.shape[1] < widest.numel:
            held = self._held[side, like.device, like.dtype] = _hold(widest, like)
        return held

    def ready(self, factors: Factors) -> tuple[Tensor, Tensor] | None:
        """The flat (A, B) of a member if they were computed for this pass."""
        again = torch._C._current_graph_task_id() != -1  # a checkpointed layer that runs again in the backward pass
        pair = self._ready.get(id(factors)) if self._running or again else None
        if pair is None or pair[0].device != factors.alpha.device:
            return None
        if pair[0].requires_grad and not torch.is_grad_enabled():
            # A re-entrant checkpoint: its second run has a backward of its own, which must not enter the shared graph.
            del self._ready[id(factors)]
            return None
        return pair

    def _begin(self, *_) -> None:
        self._ready, self._running = {}, True
        training = torch.is_grad_enabled()
        groups: dict[tuple, list[Factors]] = {}
        for m in self.members:
            device = m.alpha.device
            # Without gradients a CPU layer remembers its A and B; idle and foreign adapters have no gradients either.
            wanted = m.alpha.requires_grad or m.beta.requires_grad if training else device.type != "cpu"
            if wanted and not m.settings.regenerate:
                for side in SIDES:
                    groups.setdefault((side, m.basis[side].numel, device, m.alpha.dtype), []).append(m)
        flat: dict[int, dict[str, Tensor]] = {}
        for (side, numel, device, _), group in groups.items():
            with full_precision(device):
                c = torch.stack([m.coefficients(side) for m in group])  # [L, k]
                product = c @ self.held(side, c)[:, :numel]  # [L, m*r]
            # unbind, not indexing: its backward is one stack, so the backward pass, too, is one product
            for m, row in zip(group, product.unbind(), strict=True):
                flat.setdefault(id(m), {})[side] = row
        self._ready = {key: (sides["A"], sides["B"]) for key, sides in flat.items()}

    def _end(self, *_) -> None:
        self._running = False

    def __getstate__(self):
        return self.__dict__ | {"_held": {}, "_ready": {}, "_running": False}
