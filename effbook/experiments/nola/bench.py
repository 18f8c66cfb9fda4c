"""NOLA's lines of the ledger: what a step costs beside LoRA and PRANC, what a regenerated basis holds, what is shipped.

Both sides of a ratio run in turns in one process. The dissertation's own figures are from GPUs (Table 3.11: GPT-2 L at
batch 8; 3.2.4.6: ResNet-18 at batch 256).
"""

import gc
import multiprocessing
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from effbook.errors import EffbookError
from effbook.experiments.nola.targets import layers_of, split
from effbook.runs.bench import Ratio, compare, ratio, register_bench

LORA = layers_of("vit", "qv")  # the same layers on both sides
K = 512  # 9 blocks x 2 x 2 x 512 coefficients: a third of LoRA's parameters at rank 4, as in `mini`


def training_step(model, x, y) -> Callable[[], None]:
    """Return one step of Adam on a batch, the same for every side of a ratio."""
    import torch
    from torch import nn

    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)

    def step() -> None:
        loss = nn.functional.cross_entropy(model(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def vit_step(kind: str) -> Callable[[], None]:
    """Return one training step of a ViT-S/14 at `mini` shapes; random weights do, as no step looks at their values."""
    import timm
    import torch
    from peft import LoraConfig, get_peft_model
    from torch import nn

    from effbook.nola import NOLASettings, adapt

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=84, pretrained=False)
        body.blocks = body.blocks[:9]
        body = split(body, "vit").requires_grad_(False)
        if kind == "lora":
            body = get_peft_model(body, LoraConfig(r=4, target_modules=LORA)).base_model.model
        else:
            settings = NOLASettings(k=K, l=K, rank=4, init="vision", shared_basis=kind == "shared")
            body = adapt(body, settings, targets=LORA)
        model = nn.Sequential(body, nn.Linear(384, 10)).to(device).train()
        x, y = torch.randn(64, 3, 84, 84, device=device), torch.randint(10, (64,), device=device)
    return training_step(model, x, y)


def shared_beside_lora() -> Ratio:
    """Time of a step, one basis for all layers, against LoRA r=4 in the same layers."""
    return compare(vit_step("shared"), vit_step("lora"), repeats=15)


def per_layer_beside_lora() -> Ratio:
    """Time of a step, a basis of its own held for each layer, against LoRA r=4 in the same layers."""
    return compare(vit_step("per layer"), vit_step("lora"), repeats=15)


def same_beside_itself() -> Ratio:
    """LoRA's step against LoRA's step: what the ratios above are worth on this machine."""
    return compare(vit_step("lora"), vit_step("lora"), repeats=15)


def resnet18_step(method: str) -> Callable[[], None]:
    """Return one training step of ResNet-18 on 100 classes with the text's counts, the basis regenerated.

    k = l = 2000 for each convolution and 10,000 for the classifier, rank 64; PRANC has k + l. The text's batch of 256
    at 224 px is kept on a GPU. A CPU takes 8 images of 64 px: the network's own share of a step is small there too.
    """
    import torch
    from torch import nn

    from effbook.backbones import resnet18
    from effbook.nola import NOLASettings, adapt
    from effbook.nola.pranc import PRANCSettings, adapt_pranc

    gpu = torch.cuda.is_available()
    model = resnet18(100)
    convolutions = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    for names, k in ((convolutions, 2000), (["fc"], 10_000)):
        if method == "nola":
            settings = NOLASettings(k=k, l=k, rank=64, init="scratch", regenerate=True)
            model = adapt(model, settings, targets=names, also_train=norms)
        else:
            model = adapt_pranc(model, PRANCSettings(k=2 * k, regenerate=True), targets=names, also_train=norms)
    device = torch.device("cuda" if gpu else "cpu")
    model = model.to(device).train()
    draw = torch.Generator().manual_seed(0)
    batch, size_px = (256, 224) if gpu else (8, 64)
    x = torch.randn(batch, 3, size_px, size_px, generator=draw).to(device)
    y = torch.randint(100, (batch,), generator=draw).to(device)
    return training_step(model, x, y)


def pranc_beside_nola() -> Ratio:
    """Time of PRANC's step over NOLA's, equal coefficients a layer, as many as the text has."""
    return compare(resnet18_step("pranc"), resnet18_step("nola"), repeats=5, warm_up=1)


def regenerated_peak() -> Ratio:
    """Peak memory of forward and backward at k = 4000 over that at k = 250, basis regenerated, in bytes.

    On the CPU each side has a process of its own, as an allocator keeps what one side has freed for the other.
    """
    import torch

    if torch.cuda.is_available():
        return ratio(peak_bytes(4000), peak_bytes(250), "bytes")
    return ratio(in_a_process(peak_bytes, 4000), in_a_process(peak_bytes, 250), "bytes")


def in_a_process(function: Callable[..., int], *arguments: object) -> int:
    """Return what the function gives in a fresh process; EffbookError if the system kills that."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            raise EffbookError("the measuring process was killed", "bench where more memory is free") from None


def peak_bytes(k: int, regenerate: bool = True) -> int:
    """Return what one forward and backward pass of six of the ViT's MLP layers adds at its peak, the model included."""
    import torch
    from torch import nn

    from effbook.nola import NOLASettings, adapt

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def passes(width: int, hidden: int, count: int, rows: int) -> None:
        shapes = [(width, hidden) if i % 2 == 0 else (hidden, width) for i in range(count)]
        model = nn.Sequential(*(nn.Linear(*shape) for shape in shapes))
        settings = NOLASettings(k=k if rows > 1 else 1, l=k if rows > 1 else 1, rank=4, regenerate=regenerate)
        model = adapt(model, settings, targets=lambda _, m: isinstance(m, nn.Linear)).to(device)
        model(torch.ones(rows, width, device=device)).square().mean().backward()

    passes(4, 8, 2, 1)  # compiles the kernels
    gc.collect()
    before = level_bytes(device, reset=True)
    passes(384, 1536, 6, 64 * 37)
    return level_bytes(device) - before


def level_bytes(device, *, reset: bool = False) -> int:
    """Return the peak memory since the last reset; resetting makes today's level the peak."""
    if device.type == "cuda":
        import torch

        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated()
    try:
        if reset:  # Linux: the high-water mark becomes today's level
            Path("/proc/self/clear_refs").write_text("5")
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    except OSError as error:
        raise EffbookError("this system does not tell a process's peak memory", "bench on Linux or CUDA") from error
    return int(status["VmHWM"].split()[0]) * 1024


def skeleton():
    """Return SmolLM2-135M's architecture with arbitrary weights on the CPU: a checkpoint depends on the shapes only."""
    from effbook.backbones import meta

    return meta("smollm2").to_empty(device="cpu").requires_grad_(False)


QV, ALL = ("q_proj", "v_proj"), ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def checkpoint_size(bits: int, targets: tuple[str, ...] = QV, k: int = 480) -> tuple[int, int]:
    """Return the bytes of a NOLA checkpoint of SmolLM2-135M, k = l, and its number of coefficients."""
    import torch

    from effbook.nola import NOLASettings, adapt, count_parameters
    from effbook.nola.checkpoint import save

    model = adapt(skeleton(), NOLASettings(k=k, l=k, rank=8), targets=list(targets))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.normal_(generator=draw)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "nola.safetensors"
        save(model, path, bits=bits)
        return path.stat().st_size, count_parameters(model)


def checkpoint_beside_bound(bits: int, targets: tuple[str, ...] = QV, k: int = 480) -> Ratio:
    """Bytes shipped over coefficients x bits / 8 + 1 KiB."""
    size_bytes, count = checkpoint_size(bits, targets, k)
    return ratio(size_bytes, count * bits / 8 + 1024, "bytes")


def checkpoint_beside_lora(bits: int) -> Ratio:
    """Bytes shipped over those of LoRA r=1 in the same layers, as `peft` saves it (float32)."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(skeleton(), LoraConfig(r=1, target_modules=["q_proj", "v_proj"]))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        lora_bytes = (Path(folder) / "adapter_model.safetensors").stat().st_size
    return ratio(checkpoint_size(bits)[0], lora_bytes, "bytes")


def fused_beside_held() -> Ratio:
    """CUDA: time of drawing and contracting a basis in one kernel over that of reading a held one at memory's speed."""
    import torch

    from effbook.nola.basis import Basis, combine, generate

    basis = Basis(seed=0, stream=1, count=4000, rows=1536, cols=64, bound=1.0)
    coefficients = torch.ones(basis.count, device="cuda")
    held = generate(basis, device="cuda").flatten(1)
    return compare(lambda: combine(coefficients, basis), lambda: coefficients @ held, repeats=20)


def cpu_beside_cuda() -> Ratio:
    """CUDA: how many entries of a basis have the same bits on both devices, of all."""
    import torch

    from effbook.nola.basis import Basis, generate

    basis = Basis(seed=7, stream=3, count=64, rows=384, cols=64, bound=0.37)
    here, there = generate(basis), generate(basis, device="cuda").cpu()
    return ratio(int((here.view(torch.int32) == there.view(torch.int32)).sum()), here.numel(), "entries")


register_bench("nola", "step: shared basis / LoRA r=4", shared_beside_lora, "<= 1.05", "1.004 (GPT-2 L, GPU)")
register_bench("nola", "step: basis per layer / LoRA r=4", per_layer_beside_lora, "<= 1.15", "1.075 (GPT-2 L, GPU)")
register_bench("nola", "step: LoRA r=4 / itself", same_beside_itself)
register_bench("nola", "step: PRANC / NOLA, ResNet-18", pranc_beside_nola, ">= 4.6", "1070 / 228 ms (GPU)")
register_bench("nola", "peak memory: k=4000 / k=250, regenerated", regenerated_peak, "<= 1.05")
for _bits in (16, 8, 4, 3, 2):
    register_bench(
        "nola",
        f"checkpoint: {_bits} bits / (bits x count / 8 + 1 KiB)",
        lambda b=_bits: checkpoint_beside_bound(b),
        "<= 1",
    )
    register_bench("nola", f"checkpoint: {_bits} bits / LoRA r=1 of peft", lambda b=_bits: checkpoint_beside_lora(b))
register_bench(  # Table 3.14's shape: 420 vectors of 16, each with a scale of two bytes
    "nola", "checkpoint: 4 bits, 210 layers / bound", lambda: checkpoint_beside_bound(4, ALL, 16), "<= 1"
)
register_bench("nola", "fused kernel / held basis at memory's speed", fused_beside_held, needs=("cuda",))
register_bench("nola", "basis: equal bits on CPU and CUDA", cpu_beside_cuda, ">= 1", needs=("cuda",))
