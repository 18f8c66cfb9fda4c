"""The losses of section 2.2.3: regression of one or several teachers' features, and supervised distillation.

No teacher gets a gradient.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from effbook.errors import EffbookError

# Eq. 2.2 prints sum_j y_t^j log y_s^j, to be minimised: a minus sign is missing. Here L_KD is the Kullback-Leibler
# divergence of y_s from y_t: with the sign mended, Eq. 2.2 less the entropy of y_t, which has no gradient.


def regression_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of the squared distance of normalised features, 2 - 2 cos; also the tables' "MSE".

    predicted [B, d] with gradient, target [B, d]. Raises EffbookError where shapes differ. Source: after Eq. 2.4.
    """
    check_shapes(predicted, target)
    return (F.normalize(predicted, dim=1) - F.normalize(target.detach(), dim=1)).square().sum(1).mean()


def multi_teacher_loss(predicted: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Mean over K teachers of the regression of each by its own head (Eq. 2.5): K pairs of [B, d_k].

    Raises EffbookError where there are not as many of one as of the other, or shapes differ.
    """
    if not len(predicted) == len(targets) >= 1:
        raise EffbookError(f"{len(predicted)} heads for {len(targets)} teachers", "give each teacher a head")
    return sum(map(regression_loss, predicted, targets)) / len(predicted)


def class_probabilities(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Softmax of logits [B, c] over the temperature (Eq. 2.1)."""
    return (logits / temperature).softmax(1)


def distillation_loss(
    student: Tensor, teacher: Tensor, *, student_temperature: float = 1.0, teacher_temperature: float = 1.0
) -> Tensor:
    """L_KD, mean over the batch: from the teacher's class probabilities to the student's (Eq. 2.2); logits [B, c].

    Raises EffbookError where shapes differ.
    """
    check_shapes(student, teacher)
    known = class_probabilities(teacher.detach(), temperature=teacher_temperature)
    return F.kl_div((student / student_temperature).log_softmax(1), known, reduction="batchmean")


def supervised_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    weight: float,
    student_temperature: float,
    teacher_temperature: float = 1.0,
) -> Tensor:
    """lambda L_CE + (1 - lambda) tau_s^2 L_KD (Eq. 2.3); logits [B, c], labels [B], lambda is `weight`.

    Raises EffbookError where shapes differ or lambda is no share.
    """
    if not 0 <= weight <= 1:
        raise EffbookError(f"the weight of the labels is {weight}", "give a share from 0 to 1")
    own = distillation_loss(
        student, teacher, student_temperature=student_temperature, teacher_temperature=teacher_temperature
    )
    return weight * F.cross_entropy(student, labels) + (1 - weight) * student_temperature**2 * own


def check_shapes(predicted: Tensor, target: Tensor) -> None:
    """Raise EffbookError unless both are [B, d]."""
    if predicted.ndim != 2 or predicted.shape != target.shape:
        raise EffbookError(
            f"outputs {tuple(predicted.shape)} do not go with targets {tuple(target.shape)}", "give both as [B, d]"
        )
