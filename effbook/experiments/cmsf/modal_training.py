"""One stage of the cross-modal table: trained from the networks before it, and kept."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from effbook.cmsf.baselines import info_nce, mine, multi_instance_nce
from effbook.cmsf.config import MeanShiftSettings
from effbook.cmsf.constraints import OtherModality, Unconstrained
from effbook.cmsf.heads import projector
from effbook.cmsf.networks import Networks
from effbook.cmsf.step import MeanShift
from effbook.experiments.cmsf.modal_inputs import new_encoder, read_part
from effbook.experiments.cmsf.recording import train_recorded
from effbook.experiments.cmsf.stages import CROSS, OTHER, STAGE, Stages
from effbook.runs.recipe import Context
from effbook.training.bank import Bank
from effbook.training.distributed import gather, own_rows
from effbook.training.settings import TrainSettings
from effbook.training.train import Method
from effbook.training.views import Batch


class Network(nn.Module):
    """What goes on from stage to stage: encoder and projector."""

    def __init__(self, encoder: nn.Module, *, seed: int) -> None:
        super().__init__()
        self.encoder, self.projector = encoder, projector(encoder.num_features, seed=seed)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings [B, D] of unit length."""
        return F.normalize(self.projector(self.encoder(x)).float(), dim=1)

    @property
    def dim(self) -> int:
        """The D of an embedding."""
        return self.projector[-1].out_features


class Contrast(nn.Module):
    """InfoNCE, or CoCLR where `other` is given: the frozen network of the other modality, in which positives are mined.

    CoCLR's positives are the query's own target and the k nearest of its other modality: "top 5 and the own one".
    """

    def __init__(
        self,
        networks: Networks,
        dim: int,
        *,
        bank_size: int,
        k: int,
        momentum: float,
        seed: int,
        other: Callable[[Tensor], Tensor] | None = None,
        other_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.networks, self.k, self.momentum = networks, k, momentum
        self.other = [other]  # in a list, so that it is neither trained nor saved
        self.bank = Bank(bank_size, dim, second_dim=other_dim, seed=seed, device=networks.device)

    def trained(self) -> list[nn.Parameter]:
        return self.networks.trained()

    def loss(self, batch: Batch) -> Tensor:
        (q,) = self.networks.online(batch.strong)  # [B, D]
        self.networks.update_target(self.momentum)
        with torch.no_grad():
            u = self.networks.target(batch.weak, shuffle_key=(self.bank.pointer,))
            w = None if self.other[0] is None else self.other[0](batch.extra)  # [B, D']
            second = None if w is None else gather(w)
        own = own_rows(self.bank.enqueue(gather(u), gather(batch.index), gather(batch.label), second=second))
        entries = self.bank.embeddings[: self.bank.filled]
        if w is None:
            return info_nce(q, entries, own)
        return multi_instance_nce(q, entries, mine(w, self.bank.second[: self.bank.filled], own, k=self.k + 1))

    def get_extra_state(self) -> dict:
        return self.bank.state_dict()

    def set_extra_state(self, state: dict) -> None:
        self.bank.load_state_dict(state)


def trained(recipe: Stages, context: Context) -> Path:
    """The folder of the last stage's network and its history; what is not kept is trained now."""
    own = recipe.training()
    return context.cached(STAGE, own.parts(), own, lambda folder: learn(own, context, folder))


def kept_network(recipe: Stages, folder: Path) -> Network:
    """The network of the last stage, frozen and in evaluation mode."""
    network = Network(new_encoder(recipe, recipe.stages[-1].split("-")[1]), seed=recipe.seed)
    network.load_state_dict(load_file(folder / "network.safetensors"))
    return network.requires_grad_(False).eval()


def learn(recipe: Stages, context: Context, folder: Path) -> None:
    """Train the last stage, and write `network.safetensors` and `history.json` into the folder."""
    name, modality = recipe.stages[-1].split("-")
    start = _earlier(recipe, context, modality)
    start = start and start.requires_grad_(True)
    frozen = _earlier(recipe, context, OTHER[modality]) if name in CROSS else None
    images = read_part(recipe, context, "train", wanted=recipe.train_images, seed=recipe.seed)
    network = start or Network(new_encoder(recipe, modality, images), seed=recipe.seed)
    method = make_method(recipe, network.to(context.device), frozen and frozen.to(context.device), images=len(images))
    epochs = recipe.stage_epochs()
    settings = TrainSettings(
        epochs=epochs,
        batch=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        optimiser="adam",
        schedule="steps",
        drops=(max(1, epochs * 4 // 5),),
        seed=recipe.seed,
    )
    data = images.views(modality, other=frozen is not None)
    own = {"truth": images.labels, "title": recipe.stages[-1], "whose": list(recipe.stages)}
    history = train_recorded(method, data, settings, context, **own) | {"broken": images.broken}
    save_file({name: t.contiguous() for name, t in network.state_dict().items()}, folder / "network.safetensors")
    (folder / "history.json").write_text(json.dumps(history), encoding="utf-8")


def make_method(recipe: Stages, network: Network, frozen: Network | None, *, images: int) -> Method:
    """The method of the last stage, which trains the network in place; the frozen one of the other modality guides it.

    Raises EffbookError where the constraint and the frozen network do not go together.
    """
    name = recipe.stages[-1].split("-")[0]
    other = {"other": frozen, "other_dim": None if frozen is None else frozen.dim}
    head = {"predictor_head": nn.Identity()} if name in ("infonce", "coclr") else {}
    dim = network.encoder.num_features
    networks = Networks(network.encoder, dim, projector_head=network.projector, seed=recipe.seed, **head)
    if head:
        sizes = {"bank_size": recipe.bank, "k": recipe.k, "momentum": recipe.momentum, "seed": recipe.seed}
        return Contrast(networks, network.dim, **sizes, **other)
    constraint = Unconstrained(k=recipe.k) if name == "msf" else OtherModality(k=recipe.k, k_prime=recipe.k_prime)
    settings = MeanShiftSettings(k=recipe.k, bank_size=recipe.bank, momentum=recipe.momentum, seed=recipe.seed)
    return MeanShift(networks, constraint, settings, images=images, **other)


def _earlier(recipe: Stages, context: Context, modality: str) -> Network | None:
    """The last network of a modality before the last stage, frozen; None where there is none."""
    before = recipe.up_to(modality)
    return None if before is None else kept_network(before, trained(before, context))
