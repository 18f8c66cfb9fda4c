"""Train a scene: 3D Gaussian splatting as a loop one can read (section 3.1.3, "Overview of 3DGS")."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from effbook.errors import EffbookError
from effbook.evaluate.images import ssim
from effbook.gaussians.camera import Camera
from effbook.gaussians.config import DensitySettings, TrainSettings
from effbook.gaussians.densify import PullMeter, densify
from effbook.gaussians.model import Gaussians
from effbook.gaussians.optimise import Adam
from effbook.gaussians.rasterise import render

METER = ("pull", "seen", "widest")


@dataclass(kw_only=True, eq=False)
class State:
    """What a training run changes: a method's `before`, `penalty` and `after` may read all and replace the model."""

    gaussians: Gaussians
    adam: Adam
    meter: PullMeter
    generator: torch.Generator = field(default_factory=torch.Generator)
    order: list[int] = field(default_factory=list)  # the views still to come in this round, the next one last
    iteration: int = 0
    seconds: float = 0.0  # spent in training so far, also before it was resumed

    def replace(self, gaussians: Gaussians, origin: Tensor) -> None:
        """Put a model with other rows in place; `origin` [N] says which old row each goes on from, -1 for none."""
        self.gaussians = gaussians.map(lambda t: t.detach().requires_grad_())
        self.adam.follow(origin)
        self.meter = PullMeter(len(gaussians), device=gaussians.means.device)


def fit(
    gaussians: Gaussians,
    cameras: Sequence[Camera],
    images: Sequence[Tensor],  # [H, W, 3] in [0, 1]; on any device, each is moved when it is used
    settings: TrainSettings,
    *,
    extent: float,
    before: Callable[[State], Gaussians] | None = None,
    penalty: Callable[[State], Tensor] | None = None,
    after: Callable[[State], None] | None = None,
    watch: Callable[[int, float], None] | None = None,
    keep: Callable[[State], None] | None = None,
    resume: State | None = None,
) -> Gaussians:
    """Train a copy of the Gaussians on posed images and return it.

    `before` gives what is drawn in place of the model (a quantised one, with gradients passed through), `penalty` is
    added to the loss, `after` is called when a step is done, `watch` hears iteration and loss. `keep` is called last in
    each step and may `save_state`; with `resume` training goes on from there as if it had never stopped. Raises
    EffbookError if values of the model or the loss are not finite, and where the cameras span no space (`extent` 0).
    """
    if len(cameras) != len(images) or not cameras:
        raise EffbookError(
            f"{len(cameras)} cameras and {len(images)} images", "give one image a camera, and at least one"
        )
    if not extent > 0:
        raise EffbookError(f"the scene's extent is {extent}", "give cameras that stand in different places")
    gaussians.check_finite()
    state = resume or _begin(gaussians, settings.seed)
    background = state.gaussians.means.new_tensor(settings.background)
    began = time.perf_counter() - state.seconds
    for iteration in range(state.iteration + 1, settings.iterations + 1):
        state.iteration = iteration
        if not state.order:
            state.order = _shuffled(len(cameras), state.generator)
        view = state.order.pop()
        degree = min(settings.sh_degree, iteration // settings.sh_interval)
        drawn = before(state) if before else state.gaussians
        seen = render(drawn, cameras[view], background=background, sh_degree=degree)
        wanted = images[view].to(seen.image.device)
        loss = image_loss(seen.image, wanted, settings.ssim_weight)
        if penalty:
            loss = loss + penalty(state)
        if not torch.isfinite(loss):
            raise EffbookError(f"the loss is {loss.item()} at iteration {iteration}", "lower the learning rates")
        loss.backward()
        if watch:
            watch(iteration, float(loss.detach()))
        density = settings.density
        if iteration < density.end:
            state.meter.note(seen.splats, cameras[view])
        state.adam.step(state.gaussians, settings.rates.at(iteration, settings.iterations, extent))
        for tensor in state.gaussians.tensors().values():
            tensor.grad = None
        if iteration < density.end:
            _control_density(state, density, extent, settings.background == (1.0, 1.0, 1.0))
        if after:
            after(state)
        if keep:
            state.seconds = time.perf_counter() - began
            keep(state)
    trained = state.gaussians.detached()
    trained.check_finite()
    return trained


def _shuffled(n: int, generator: torch.Generator) -> list[int]:
    return torch.randperm(n, generator=generator, device=generator.device).tolist()


def _begin(gaussians: Gaussians, seed: int) -> State:
    model = gaussians.detached().map(lambda t: t.requires_grad_())
    meter = PullMeter(len(model), device=model.means.device)
    return State(gaussians=model, adam=Adam(model), meter=meter, generator=torch.Generator().manual_seed(seed))


def save_state(state: State, path: Path) -> None:
    """Write what `load_state` needs to go on from here."""
    tensors = {f"gaussians.{name}": t.detach() for name, t in state.gaussians.tensors().items()}
    tensors |= {f"first.{name}": t for name, t in state.adam.first.items()}
    tensors |= {f"second.{name}": t for name, t in state.adam.second.items()}
    tensors |= {f"meter.{name}": getattr(state.meter, name) for name in METER}
    tensors["generator"] = state.generator.get_state()
    tensors["order"] = torch.tensor(state.order, dtype=torch.int64, device="cpu")
    tensors["steps"] = torch.tensor([state.iteration, state.adam.steps], device="cpu")
    tensors["seconds"] = torch.tensor(state.seconds, dtype=torch.float64, device="cpu")
    save_file({name: t.contiguous() for name, t in tensors.items()}, path)


def load_state(path: Path, device: torch.device | str = "cpu") -> State:
    """The state that `save_state` wrote. Raises EffbookError for a file that is none."""
    try:
        found = load_file(path, device=str(device))
        model = Gaussians(**{f.name: found[f"gaussians.{f.name}"].requires_grad_() for f in fields(Gaussians)})
        state = _begin(model, 0)
        state.gaussians = model
        for name in model.tensors():
            state.adam.first[name], state.adam.second[name] = found[f"first.{name}"], found[f"second.{name}"]
        for name in METER:
            setattr(state.meter, name, found[f"meter.{name}"])
        state.generator.set_state(found["generator"].cpu())
    except (OSError, KeyError, SafetensorError) as error:
        raise EffbookError(f"{path} holds no state of a training ({error})", "remove it") from None
    state.order, state.seconds = found["order"].tolist(), float(found["seconds"])
    state.iteration, state.adam.steps = found["steps"].tolist()
    return state


def image_loss(image: Tensor, wanted: Tensor, ssim_weight: float) -> Tensor:
    """(1 - w) L1 + w (1 - SSIM) of two images [H, W, 3], as in 3DGS."""
    return (1 - ssim_weight) * (image - wanted).abs().mean() + ssim_weight * (1 - ssim(image, wanted))


def _control_density(state: State, density: DensitySettings, extent: float, white: bool) -> None:
    """Densify and reset opacities where it is time; 3DGS resets once more at the start before a white background."""
    iteration = state.iteration
    if iteration > density.start and iteration % density.interval == 0:
        after_reset = iteration > density.reset_interval
        grown, origin = densify(
            state.gaussians, state.meter, extent=extent, settings=density, after_reset=after_reset,
            generator=state.generator,
        )  # fmt: skip
        state.replace(grown, origin)
    if iteration % density.reset_interval == 0 or (white and iteration == density.start):
        with torch.no_grad():
            ceiling = torch.tensor(density.reset_opacity, device="cpu").logit()
            state.gaussians.opacities.clamp_(max=float(ceiling))
        state.adam.forget("opacities")


def camera_extent(cameras: Sequence[Camera]) -> float:
    """3DGS's size of a scene: 1.1 times the largest distance of a camera from the cameras' mean place."""
    places = torch.stack([camera.position.double() for camera in cameras])
    return 1.1 * float((places - places.mean(0)).norm(dim=-1).max())
