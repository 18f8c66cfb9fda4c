"""Who guesses labels while mean shift trains: a classifier on the labelled images' features (2.1.3.3)."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from effbook.cmsf.analysis import label_score
from effbook.cmsf.pseudo import (
    ClassifierSettings,
    FeatureCache,
    NearestNeighbours,
    confident,
    fit_classifier,
    new_head,
    predict,
)
from effbook.cmsf.step import MeanShift
from effbook.errors import EffbookError
from effbook.training.distributed import gather
from effbook.training.seeds import generator
from effbook.training.train import Moment
from effbook.training.views import Batch

LEAST_STEPS = 16  # of a classifier's epoch: where few images have labels, its batch of 256 is made smaller


class PseudoLabels(nn.Module):
    """What `MeanShift` asks for labels: the true ones, and what a classifier on the labelled images' features guesses.

        method = MeanShift(networks, ConfidentPseudoLabel(k=10), settings, images=len(labels))
        method.relabel = PseudoLabels(method, labels, classes=10)
        train(method, data, training, watch=method.relabel.after)

    `labels` [N] are -1 where unknown; a guess counts above the threshold of the method's constraint. `after` trains the
    classifier anew in the middle and at the end of each epoch. Its features are those that training comes by (online),
    or, with `plain(index [B])`, which gives unaltered images, those of one pass before (offline), `at_once` images at a
    time. Raises EffbookError where no image has a label, or one lies outside the classes.
    """

    def __init__(
        self,
        method: MeanShift,
        labels: Tensor,
        *,
        classes: int,
        settings: ClassifierSettings | None = None,
        plain: Callable[[Tensor], Tensor] | None = None,
        at_once: int = 256,
        seed: int = 0,
    ) -> None:
        super().__init__()
        labels = labels.long()
        if int(labels.max()) >= classes:
            raise EffbookError("a label lies outside the classes", f"give labels from 0 to {classes - 1}, or -1")
        settings = settings or ClassifierSettings()
        batch = max(2, min(settings.batch, int((labels >= 0).sum()) // LEAST_STEPS))
        self.settings, self.classes, self.threshold = (
            replace(settings, batch=batch),
            classes,
            method.constraint.threshold,
        )
        self.plain, self.at_once, self.seed, self.rounds = plain, at_once, seed, 0
        self.networks = [method.networks]  # in a list, so that it is not a part of this module
        self.cache = FeatureCache(labels, dim=method.bank.embeddings.shape[1])
        self.fitted: list[nn.Module] = []  # the classifier, not a part either: a new one has no place in a state yet
        self._guessed: list[tuple[Tensor, Tensor, Tensor]] = []  # index, label, whether confident
        self.to(method.bank.embeddings.device)

    def forward(self, batch: Batch, u: Tensor) -> Tensor:
        """Labels [B] for the bank: the true one, else a confident guess, else -1."""
        truth = self.cache.labels_of(batch.index)
        if self.plain is None:
            self.cache.write(gather(batch.index), gather(u))
        if self.classifier is None:
            return truth
        guess, confidence = predict(self.classifier.eval(), u, threshold=0.0)
        sure = confident(confidence, self.threshold)
        self._guessed.append((batch.index[truth < 0], guess[truth < 0], sure[truth < 0]))
        return torch.where(truth >= 0, truth, guess.where(sure, -1))

    @property
    def classifier(self) -> nn.Module | None:
        """What guesses at present."""
        return self.fitted[0] if self.fitted else None

    def after(self, moment: Moment) -> None:
        """Train the classifier, in the middle and at the end of an epoch (2.1.3.3); call it after each step."""
        if moment.step == 1:
            self._guessed = self._guessed[-1:]  # of this epoch, where nobody asked for the last one's scores
        if moment.step not in (moment.steps // 2, moment.steps):
            return
        if self.plain is not None:
            self.cache.fill(self._embed, batch=self.at_once)
        features, labels = self.cache.known()
        if len(labels) >= 2:
            self.rounds += 1
            draw = generator(self.seed, self.rounds)
            self.fitted = [
                fit_classifier(features, labels, classes=self.classes, settings=self.settings, generator=draw)
            ]

    def scores(self, truth: Tensor) -> dict[str, float]:
        """Percentage of right guesses of this epoch, of all and of the confident ones, and how many these are.

        truth [N]: the true label of every image.
        """
        if not self._guessed:
            return {}
        index, guess, sure = (torch.cat(parts).cpu() for parts in zip(*self._guessed, strict=True))
        self._guessed = []
        score = label_score(guess.where(sure, -1), truth[index])
        found = {"labels": label_score(guess, truth[index]).right, "confident_share": score.given}
        return found | ({"confident": score.right} if sure.any() else {})

    @torch.no_grad()
    def _embed(self, index: Tensor) -> Tensor:
        return self.networks[0].target(self.plain(index.cpu()).to(self.cache.features.device))

    def made_with(self) -> str:
        """What a checkpoint must have been made with to go on from."""
        return f"of {self.classes} classes by {self.settings}{'' if self.plain is None else ', offline'}"

    def get_extra_state(self) -> dict:
        """The classifier, which is made anew again and again, and how often it was."""
        return {"rounds": self.rounds, "classifier": self.classifier.state_dict() if self.classifier else None}

    def set_extra_state(self, state: dict) -> None:
        self.rounds = state["rounds"]
        if state["classifier"] is None:
            return
        kept = state["classifier"]
        if self.settings.kind == "knn":
            made = NearestNeighbours(
                kept["bank"], kept["votes"].argmax(1), classes=self.classes, k=self.settings.neighbours
            )
        else:
            dim, hidden = self.cache.features.shape[1], self.settings.hidden
            made = new_head(self.settings.kind, dim, self.classes, hidden=hidden, generator=generator(0))
        made.load_state_dict(kept)
        self.fitted = [made.to(self.cache.features.device).eval()]
