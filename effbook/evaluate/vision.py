"""Scores of classifiers, and features of images in batches."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effbook.errors import EffbookError


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Top-1 accuracy in percent: logits [N, C], labels [N]. Raises `EffbookError` where the lengths differ or N = 0."""
    if logits.ndim != 2 or logits.shape[:1] != labels.shape or not len(labels):
        raise EffbookError(
            f"Logits of shape {tuple(logits.shape)} do not go with labels of shape {tuple(labels.shape)}",
            "give logits [N, C] and labels [N] with N of at least 1",
        )
    return 100.0 * (logits.argmax(dim=1) == labels.to(logits.device)).double().mean().item()


def nearest_neighbour(train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor) -> float:
    """Accuracy in percent of giving each test feature [M, D] the label of its nearest training feature [N, D].

    Nearest by cosine similarity; between equals the earlier training example wins. Raises `EffbookError` where the
    shapes do not fit.
    """
    if train_x.ndim != 2 or train_x.shape[1:] != test_x.shape[1:] or not len(train_x) or len(train_x) != len(train_y):
        raise EffbookError(
            f"Training features {tuple(train_x.shape)} with {len(train_y)} labels cannot classify "
            f"features {tuple(test_x.shape)}",
            "give features [N, D] with labels [N], and features [M, D]",
        )
    bank = F.normalize(train_x.float(), dim=1)
    nearest = [(F.normalize(chunk.float(), dim=1) @ bank.T).argmax(dim=1) for chunk in test_x.split(4096)]
    votes = F.one_hot(train_y[torch.cat(nearest).to(train_y.device)].long())  # [M, C]
    return accuracy(votes, test_y)


@torch.no_grad()
def features(
    model: nn.Module, images: Tensor, batch: int = 64, *, transform: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """What ``model`` gives for images [N, ...], ``batch`` at a time, in evaluation mode: [N, D] float32 on the CPU.

    ``transform`` prepares one batch (resize, normalise), so that large images exist for one batch only. The model's
    mode is put back afterwards. Raises `EffbookError` for a batch below 1 or no images.
    """
    if batch < 1 or not len(images):
        raise EffbookError(f"Cannot take {len(images)} images in batches of {batch}", "give at least one image and 1")
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    was_training = model.training
    model.eval()
    try:
        parts = []
        for part in images.split(batch):
            part = part.to(device)
            parts.append(model(transform(part) if transform else part).float().cpu())
        return torch.cat(parts)
    finally:
        model.train(was_training)
