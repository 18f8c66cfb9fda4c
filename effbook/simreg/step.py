"""SimReg as a method that the training loop takes (2.2.3), and the choice of a method by its settings."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from effbook.errors import EffbookError
from effbook.simreg.baselines import CompRess, RegressBN, regress_loss
from effbook.simreg.config import DistillSettings
from effbook.simreg.loss import regression_loss
from effbook.simreg.networks import Student, Teachers, device_of
from effbook.training.views import Batch


class SimReg(nn.Module):
    """Regression of each teacher's features by the student's head for it (Eq. 2.5).

    `distances` compare [B, d_k] with [B, d_k], one a teacher: SimReg's own, or that of Regress or Regress-BN.
    """

    def __init__(
        self, student: Student, teachers: Teachers, distances: list[Callable[[Tensor, Tensor], Tensor]]
    ) -> None:
        super().__init__()
        self.student, self.teachers = student, [teachers]  # in a list, so that they are neither trained nor saved
        self.distances = distances
        self.norms = nn.ModuleList(d for d in distances if isinstance(d, nn.Module))

    def trained(self) -> list[nn.Parameter]:
        """What the optimiser gets."""
        return [p for p in self.student.parameters() if p.requires_grad]

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a batch, to be differentiated."""
        targets = self.teachers[0](batch)  # f_t^k
        predicted = self.student(batch.strong[0])  # f_s^k
        terms = [d(p, t) for d, p, t in zip(self.distances, predicted, targets, strict=True)]
        return torch.stack(terms).mean()  # 1/K sum_k


def make_method(student: Student, teachers: Teachers, settings: DistillSettings) -> SimReg | CompRess:
    """The method that the settings name. Raises EffbookError for several teachers with CompRess."""
    device = device_of(student)
    if settings.objective.startswith("compress"):
        if len(teachers.dims) > 1:
            raise EffbookError(f"CompRess with {len(teachers.dims)} teachers", 'give one, or the objective "simreg"')
        return CompRess(student, teachers, settings, device=device)
    kinds: dict[str, Callable[[int], Callable[[Tensor, Tensor], Tensor]]] = {
        "simreg": lambda dim: regression_loss,
        "regress": lambda dim: regress_loss,
        "regress-bn": lambda dim: RegressBN(dim).to(device),
    }
    return SimReg(student, teachers, [kinds[settings.objective](dim) for dim in teachers.dims])
