"""What CMSF is compared with, as methods that its training loop takes: Xent, SupCon, ProtoNW and PAWS."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from effbook.cmsf.baselines import drawn_linear, proto_nw, supcon, supcon_head
from effbook.cmsf.networks import Networks
from effbook.cmsf.paws import PAWSSettings, draw_support, paws
from effbook.experiments.cmsf.settings import Training
from effbook.training.bank import Bank
from effbook.training.distributed import gather, own_rows
from effbook.training.precision import in_precision
from effbook.training.seeds import generator
from effbook.training.views import Batch

PER_CLASS = 2  # support images of a class, as in Table 2.6's row


def rival(recipe: Training, encoder: nn.Module, *, labels: Tensor, classes: int, seen: Callable) -> nn.Module:
    """The method of a recipe that is no mean shift. `seen(index, generator)` gives augmented images, for PAWS."""
    draw = generator(recipe.seed, 1)
    if recipe.method == "xent":
        return CrossEntropy(encoder, drawn_linear(encoder.num_features, classes, generator=draw), recipe.precision)
    if recipe.method == "paws":
        return PAWS(recipe, encoder, labels, seen)
    return Contrast(recipe, encoder, classes)


class CrossEntropy(nn.Module):
    """Ordinary supervised training (Xent) on the online view."""

    def __init__(self, encoder: nn.Module, head: nn.Linear, precision: str) -> None:
        super().__init__()
        self.encoder, self.head, self.precision = encoder, head.to(next(encoder.parameters()).device), precision

    def trained(self) -> list[nn.Parameter]:
        return [p for p in self.parameters() if p.requires_grad]

    def loss(self, batch: Batch) -> Tensor:
        x = batch.strong[0]
        with in_precision(self.precision, x):
            logits = self.head(self.encoder(x))
        return F.cross_entropy(logits.float(), batch.label)


class Contrast(nn.Module):
    """SupCon, or ProtoNW, with a target network and a bank as mean shift has them (A.1.5.2)."""

    def __init__(self, recipe: Training, encoder: nn.Module, classes: int) -> None:
        super().__init__()
        dim = encoder.num_features
        head = supcon_head(dim, generator=generator(recipe.seed, 2))
        self.recipe, self.classes = recipe, classes
        self.networks = Networks(
            encoder, dim, projector_head=head, predictor_head=nn.Identity(), precision=recipe.precision
        )
        self.bank = Bank(recipe.bank, head[-1].out_features, seed=recipe.seed, device=self.networks.device)

    def trained(self) -> list[nn.Parameter]:
        return self.networks.trained()

    def loss(self, batch: Batch) -> Tensor:
        (q,) = self.networks.online(batch.strong[:1])
        self.networks.update_target(self.recipe.momentum)
        u = self.networks.target(batch.weak, shuffle_key=(self.recipe.seed, self.bank.pointer))
        own = own_rows(self.bank.enqueue(gather(u), gather(batch.index), gather(batch.label)))
        entries, theirs = self.bank.embeddings[: self.bank.filled], self.bank.label[: self.bank.filled]
        if self.recipe.method == "protonw":
            return proto_nw(q, entries, labels=batch.label, bank_labels=theirs, classes=self.classes)
        with_target = self.recipe.target_in_set
        return supcon(q, entries, own, labels=batch.label, bank_labels=theirs, with_target=with_target)

    def get_extra_state(self) -> dict:
        return self.bank.state_dict()

    def set_extra_state(self, state: dict) -> None:
        self.bank.load_state_dict(state)


class PAWS(nn.Module):
    """PAWS: two views of the unlabelled images agree on what a support of labelled ones says of them."""

    def __init__(self, recipe: Training, encoder: nn.Module, labels: Tensor, seen: Callable) -> None:
        super().__init__()
        dim = encoder.num_features
        self.recipe, self.encoder, self.labels, self.seen, self.steps = recipe, encoder, labels, [seen], 0
        self.head = supcon_head(dim, dim // 4, generator=generator(recipe.seed, 2)).to(
            next(encoder.parameters()).device
        )

    def trained(self) -> list[nn.Parameter]:
        return [p for p in self.parameters() if p.requires_grad]

    def loss(self, batch: Batch) -> Tensor:
        draw = generator(self.recipe.seed, 3, self.steps)
        self.steps += 1
        enough = int((self.labels[self.labels >= 0].bincount() >= PER_CLASS).sum())
        classes = max(1, min(enough, self.recipe.support // PER_CLASS))
        chosen = draw_support(self.labels, classes=classes, per_class=self.recipe.support // classes, generator=draw)
        images = self.seen[0](chosen, draw).to(batch.weak.device)
        with in_precision(self.recipe.precision, images):
            *views, anchors = (self.head(self.encoder(x)) for x in (*batch.strong, batch.weak, images))
        views = [views[0], views[-1], *views[1:-1]]  # the two whole ones first
        labels = self.labels[chosen].to(images.device)
        return paws([x.float() for x in views], anchors.float(), labels, settings=PAWSSettings())

    def get_extra_state(self) -> dict:
        return {"steps": self.steps}

    def set_extra_state(self, state: dict) -> None:
        self.steps = state["steps"]
