"""NOLA checkpoints: coefficients, seed and a small header, in one safetensors file, without pickle.

The file holds one uint8 tensor, the `payload`: the float16 scales of all coefficient vectors (none for 16 and 32 bits),
then all coefficients as one stream of bits; layers by name, alpha before beta. The metadata holds the version, the
settings, which layers they go to and two digests: of the architecture (names and shapes) and of all else in the file.
The basis is a matter of the seed, equal to the bit on every device, so that a file means the same weights everywhere.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from effbook.errors import EffbookError
from effbook.files import placed
from effbook.nola.config import BITS, NOLASettings
from effbook.nola.inject import adapt, adapted
from effbook.nola.layer import NOLALayer, Targets, adaptable, matching, matrix_shape
from effbook.nola.quantise import dequantise, pack, quantise, unpack

FORMAT, VERSION = "effbook-nola", 1
FULL = 32  # bits of a coefficient that is stored as it is
EXECUTION = ("regenerate", "chunk")  # settings that say how to compute, not what


def _digest(*parts: bytes) -> str:
    h = hashlib.blake2b(digest_size=16)
    for part in parts:
        h.update(len(part).to_bytes(8, "little") + part)
    return h.hexdigest()


def _layers(model: nn.Module) -> dict[str, NOLALayer]:
    """NOLA layers by the name that picks their basis, sorted; the same whatever the model was later put into."""
    layers = list(adapted(model).values())
    by_name = {layer.factors.name: layer for layer in layers}
    if len(by_name) != len(layers):
        raise EffbookError("Two NOLA layers of this model have the same name", "save the adapted parts one by one")
    return dict(sorted(by_name.items()))


Shape = tuple[str, int, int, int, int]  # a layer's name, m, n, k, l


def _architecture(shapes: list[Shape]) -> str:
    return _digest(json.dumps(sorted(shapes)).encode())


def _shapes(layers: dict[str, NOLALayer]) -> list[Shape]:
    return [(name, x.factors.rows, x.factors.cols, x.alpha.numel(), x.beta.numel()) for name, x in layers.items()]


def _shapes_to_be(model: nn.Module, groups: list[tuple[NOLASettings, list[str]]]) -> list[Shape]:
    """The shapes that a base model would have once adapted, without touching it; raises EffbookError if it can't be."""
    return [
        (name, *matrix_shape(module), settings.k, settings.l)
        for settings, patterns in groups
        for name, module in matching(model, _whole(patterns), adaptable).items()
    ]


def _whole(patterns: list[str]) -> Targets:
    """The layers whose whole name a pattern matches: unlike in `adapt`, "fc" in a file doesn't mean block.fc."""
    return lambda name, _: any(re.fullmatch(pattern, name) for pattern in patterns)


def _meaning(settings: NOLASettings) -> dict[str, Any]:
    return {key: value for key, value in settings.to_dict().items() if key not in EXECUTION}


def _patterns(model: nn.Module, chosen: list[str]) -> list[str]:
    """Few regular expressions that match the chosen layers and no other: numbers as \\d+ where that's so.

    Names are those at the time of adapting, whatever the model was later put into.
    """
    fronts = {name.removesuffix(layer.factors.name) for name, layer in adapted(model).items()}
    others = {
        name.removeprefix(front)
        for name, m in model.named_modules()
        if adaptable(m) or isinstance(m, NOLALayer)
        for front in fronts
        if name.startswith(front)
    } - set(chosen)
    patterns: dict[str, None] = {}
    for name in chosen:
        pattern = re.sub(r"\d+", lambda _: r"\d+", re.escape(name))
        wide = any(re.fullmatch(pattern, other) for other in others)
        patterns[re.escape(name) if wide else pattern] = None
    return list(patterns)


def save(model: nn.Module, path: str | Path, *, bits: int | None = None) -> int:
    """Write the model's NOLA coefficients to `path`, whole or not at all; returns the file's size_bytes.

    `bits`: 32 (float32, nothing lost), 16, 8, 4, 3 or 2; by default those of quantisation-aware training, else 32.
    Layers outside NOLA (a head that trained along) aren't part of it. Raises EffbookError for a model without NOLA
    layers, other bits, or a coefficient that isn't finite.
    """
    layers = _layers(model)
    if not layers:
        raise EffbookError("This model has no NOLA layers to save", "call effbook.nola.adapt on it first")
    if bits is None:
        trained = {layer.settings.bits for layer in layers.values()}
        bits = next(iter(trained)) or FULL if len(trained) == 1 else FULL
    if bits not in (FULL, *BITS):
        raise EffbookError(f"{bits!r} bits a coefficient", f"choose one of {(FULL, *BITS)}")
    vectors = [v.detach().cpu().float() for layer in layers.values() for v in (layer.alpha, layer.beta)]
    if not all(torch.isfinite(v).all() for v in vectors):
        raise EffbookError("A coefficient is nan or inf", "look for the step at which training diverged")
    if bits == FULL:
        payload = torch.cat(vectors).view(torch.uint8)
    else:
        codes, scales = zip(*(quantise(v, bits) for v in vectors), strict=True)
        payload = pack(torch.cat(codes), bits)
        if bits != 16:
            payload = torch.cat([torch.stack(scales).to(torch.float16).view(torch.uint8), payload])
    groups: dict[NOLASettings, list[str]] = {}
    for name, layer in layers.items():
        groups.setdefault(layer.settings, []).append(name)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "bits": bits,
        "architecture": _architecture(_shapes(layers)),
        "groups": [{**_meaning(s), "targets": _patterns(model, chosen)} for s, chosen in groups.items()],
    }
    text = json.dumps(header, separators=(",", ":"))
    metadata = {"nola": text, "digest": _digest(text.encode(), payload.numpy().tobytes())}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with placed(path) as beside:
        beside.write_bytes(_file(payload.numpy().tobytes(), metadata))
    return path.stat().st_size


def _file(payload: bytes, metadata: dict[str, str]) -> bytes:
    """A safetensors file; its own writer puts metadata in another order each time, and equal models get equal files."""
    tensor = {"dtype": "U8", "shape": [len(payload)], "data_offsets": [0, len(payload)]}
    head = json.dumps({"__metadata__": metadata, "payload": tensor}, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + payload


def _read(path: Path) -> tuple[dict[str, Any], Tensor]:
    """Header and payload, verified; EffbookError for a file that is missing, foreign, newer, broken or altered."""
    if not path.is_file():
        raise EffbookError(f"There is no checkpoint {path}", "check the path")
    again = "get the file again, or save it anew"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if "nola" not in metadata:
                raise EffbookError(f"{path} isn't a NOLA checkpoint", "give a file that effbook.nola.save wrote")
            payload = file.get_tensor("payload")
        header = json.loads(metadata["nola"])
        version = header["version"]
    except (SafetensorError, json.JSONDecodeError, KeyError, TypeError, OSError) as error:
        raise EffbookError(f"{path} is truncated or isn't a NOLA checkpoint", again) from error
    if header.get("format") != FORMAT or version != VERSION:
        raise EffbookError(f"{path} has version {version!r}, this code reads {VERSION}", "install a newer effbook")
    if payload.dtype != torch.uint8 or payload.dim() != 1:
        raise EffbookError(f"{path} has been changed since it was saved", again)
    if metadata.get("digest") != _digest(metadata["nola"].encode(), payload.numpy().tobytes()):
        raise EffbookError(f"{path} has been changed since it was saved", again)
    return header, payload


def _decode(payload: Tensor, bits: int, counts: list[int]) -> list[Tensor]:
    """The coefficient vectors, of `counts` entries each, float32."""
    if bits == FULL:
        return list(payload.view(torch.float32).split(counts))
    scales = torch.ones(len(counts))
    if bits != 16:
        scales, payload = payload[: 2 * len(counts)].clone().view(torch.float16).float(), payload[2 * len(counts) :]
    codes = unpack(payload, bits, sum(counts)).split(counts)
    return [dequantise(c, scale, bits) for c, scale in zip(codes, scales, strict=True)]


@torch.no_grad()
def load(model: nn.Module, path: str | Path) -> nn.Module:
    """Give the model the coefficients of a checkpoint, on whatever device it is; returns the model.

    A base model is adapted first, with the file's settings; a model that has NOLA layers must have the same ones.
    Raises EffbookError for another architecture or other settings, and for a file that is missing, truncated,
    tampered with or of a version that this code doesn't know; the model keeps its coefficients then.
    """
    header, payload = _read(Path(path))
    groups = [
        (NOLASettings.from_dict({key: v for key, v in g.items() if key != "targets"}), g["targets"])
        for g in header["groups"]
    ]
    fresh = not adapted(model)
    try:
        shapes = _shapes_to_be(model, groups) if fresh else _shapes(_layers(model))
        fits = _architecture(shapes) == header["architecture"]
    except EffbookError:
        fits = False
    if not fits:
        raise EffbookError(f"{path} belongs to another architecture", "load it into the model that it was trained on")
    if fresh:
        for settings, targets in groups:
            adapt(model, settings, targets=_whole(targets))
    layers = _layers(model)
    saved = {json.dumps(_meaning(settings), sort_keys=True) for settings, _ in groups}
    here = {json.dumps(_meaning(layer.settings), sort_keys=True) for layer in layers.values()}
    if saved != here:
        raise EffbookError(f"{path} was saved with other settings than this model's", "load it into the base model")
    vectors = iter(_decode(payload, header["bits"], [n for x in layers.values() for n in (x.settings.k, x.settings.l)]))
    for layer in layers.values():
        merged = layer.merged
        layer.unmerge()
        layer.alpha.copy_(next(vectors))
        layer.beta.copy_(next(vectors))
        if merged:
            layer.merge()
    return model
