"""What SimReg is compared with: Regress, Regress-BN, and CompRess with one queue or two (2.2.4.1).

CC and CRD are quoted by the dissertation. Each of these works with any head.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effbook.simreg.config import DistillSettings
from effbook.simreg.loss import check_shapes
from effbook.simreg.networks import Student, Teachers
from effbook.training.bank import Bank
from effbook.training.distributed import gather
from effbook.training.views import Batch


def regress_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Regress: the mean squared error of features [B, d] as they are, over images and dimensions.

    Raises EffbookError where shapes differ.
    """
    check_shapes(predicted, target)
    return F.mse_loss(predicted, target.detach())


class RegressBN(nn.Module):
    """Regress-BN: the mean squared error after batch norm, without scale and shift, of either side's [B, d].

    With trained scale and shift on the teacher's side all features could become equal. Raises as `regress_loss`.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.of_student, self.of_teacher = (nn.BatchNorm1d(dim, affine=False) for _ in range(2))

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        check_shapes(predicted, target)
        return F.mse_loss(self.of_student(predicted), self.of_teacher(target.detach()))


def similarities(features: Tensor, queue: Tensor, *, temperature: float) -> Tensor:
    """Log of the softmax over the anchor points: how similar each of [B, d] is to each of the queue [M, d].

    The queue's vectors are of unit length; the features become so.
    """
    return (F.normalize(features, dim=1) @ queue.T / temperature).log_softmax(1)  # [B, M]


def compress_loss(
    student: Tensor, teacher: Tensor, student_queue: Tensor, teacher_queue: Tensor, *, temperature: float = 0.04
) -> Tensor:
    """KL from the teacher's similarities with its queue to the student's with its own, mean over the batch.

    Features [B, d_s] and [B, d_t], queues [M, d_s] and [M, d_t]; 1q is one queue for both.
    """
    known = similarities(teacher.detach(), teacher_queue, temperature=temperature)
    return F.kl_div(
        similarities(student, student_queue, temperature=temperature), known, reduction="batchmean", log_target=True
    )


class CompRess(nn.Module):
    """CompRess as a method that `train` takes; queues are read before the batch enters them.

    1q: the teacher's queue is the student's, too, so the head ends in d. 2q: the student has a queue of its own, fed by
    a slow copy of it (`momentum`), which sees the student's view in training mode; the copy moves before it is asked.
    Both queues start with random vectors. Source: 2.2.4.1 and the released code.
    """

    def __init__(
        self, student: Student, teachers: Teachers, settings: DistillSettings, *, device: torch.device
    ) -> None:
        super().__init__()
        self.student, self.teachers, self.settings = student, [teachers], settings  # in a list: not to be saved
        self.slow = copy.deepcopy(student).requires_grad_(False) if settings.objective == "compress-2q" else None
        (dim,) = teachers.dims
        own = None
        if self.slow is not None:
            own = student.dim if settings.head == "none" else dim
        self.bank = Bank(settings.queue_size, dim, second_dim=own, seed=settings.seed, device=device)

    def trained(self) -> list[nn.Parameter]:
        """What the optimiser gets."""
        return [p for p in self.student.parameters() if p.requires_grad]

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a batch, to be differentiated; slow student and queues move on by one step."""
        (known,) = self.teachers[0](batch)  # [B, d]
        (predicted,) = self.student(batch.strong[0])
        anchors = self.bank.embeddings
        own_anchors = anchors if self.slow is None else self.bank.second
        loss = compress_loss(  # on a copy, as the gradient needs the queue as it was
            predicted, known, own_anchors.clone(), anchors, temperature=self.settings.temperature
        )
        second = None
        if self.slow is not None:
            second = gather(F.normalize(self._slow_features(batch.strong[0]), dim=1))
        self.bank.enqueue(gather(F.normalize(known, dim=1)), gather(batch.index), gather(batch.label), second=second)
        return loss

    @torch.no_grad()
    def _slow_features(self, view: Tensor) -> Tensor:
        slow, quick = list(self.slow.parameters()), list(self.student.parameters())
        torch._foreach_lerp_(slow, quick, 1 - self.settings.momentum)  # parameters only: its BN buffers are its own
        return self.slow(view)[0]

    def get_extra_state(self) -> dict[str, Any]:
        """The queues, beside the networks' parameters and buffers."""
        return {"bank": self.bank.state_dict()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.bank.load_state_dict(state["bank"])
