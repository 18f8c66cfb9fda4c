"""Small data that we draw ourselves, so that every path runs in seconds without a file (profile `smoke`)."""

import hashlib
from functools import cache

import numpy as np

SHAPES = ("circle", "square", "triangle", "cross", "ring")
TONES = ("warm", "cold")
SHAPE_CLASSES = tuple(f"{tone} {shape}" for tone in TONES for shape in SHAPES)
SHAPE_SIDE_PX = 32
SHAPE_COUNTS = {"train": 500, "test": 200}
PAIR_COUNTS = {"train": 200, "dev": 40, "test": 40}


def _mask(shape: str, centre_y: int, centre_x: int, radius: int) -> np.ndarray:
    """Which pixels a shape covers, [32, 32] bool; whole numbers only, so that every machine draws the same."""
    y, x = np.mgrid[:SHAPE_SIDE_PX, :SHAPE_SIDE_PX]
    dy, dx = y - centre_y, x - centre_x
    squared = dy * dy + dx * dx
    if shape == "circle":
        return squared <= radius * radius
    if shape == "square":
        return (abs(dy) <= radius) & (abs(dx) <= radius)
    if shape == "triangle":
        return (abs(dy) <= radius) & (2 * abs(dx) <= dy + radius)
    if shape == "cross":
        arm = max(1, radius // 3)
        return ((abs(dy) <= arm) & (abs(dx) <= radius)) | ((abs(dx) <= arm) & (abs(dy) <= radius))
    return (squared <= radius * radius) & (4 * squared >= radius * radius)  # ring


@cache
def toy_shapes(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Coloured shapes on a noisy ground: images [N, 32, 32, 3] uint8 and labels [N] int64, in ten classes.

    Warm and cold tones overlap in brightness, so that neither shape nor colour alone gives the class.
    """
    rng = np.random.default_rng([20240, sorted(SHAPE_COUNTS).index(split)])
    count = SHAPE_COUNTS[split]
    labels = np.arange(count, dtype=np.int64) % len(SHAPE_CLASSES)
    images = rng.integers(0, 96, (count, SHAPE_SIDE_PX, SHAPE_SIDE_PX, 3), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        tone, shape = divmod(int(label), len(SHAPES))
        radius = int(rng.integers(6, 11))
        centre_y, centre_x = rng.integers(11, 21, 2)
        strong, middle, weak = rng.integers(180, 256), rng.integers(90, 170), rng.integers(0, 90)
        image[_mask(SHAPES[shape], int(centre_y), int(centre_x), radius)] = (
            (strong, middle, weak) if tone == 0 else (weak, middle, strong)
        )
    images.flags.writeable = labels.flags.writeable = False  # shared by all callers
    return images, labels


NAMES = ("Aubergine", "Blue Gate", "Corner Table", "Dovecote", "Elm Room", "Fenwick", "Green Jug", "Harbour Inn")
KINDS = ("pub", "restaurant", "coffee shop")
FOODS = ("English", "French", "Indian", "Italian", "Japanese")
AREAS = {"city centre": "in the city centre", "riverside": "by the river"}
TEMPLATES = (
    "{name} is a {kind} {place} that serves {food} food.",
    "There is a {kind} called {name} {place}, which serves {food} food.",
    "{food} food is served at {name}, a {kind} {place}.",
)


@cache
def toy_pairs(split: str) -> tuple[tuple[str, tuple[str, ...], str], ...]:
    """Data-to-text pairs in E2E's manner: (source, three references, category); no source is in two splits."""
    everything = [(n, k, f, a) for n in NAMES for k in KINDS for f in FOODS for a in AREAS]  # 240
    everything += [(f"{n} Two", k, f, a) for n in NAMES[:2] for k in KINDS for f in FOODS[:4] for a in AREAS][:40]
    order = np.random.default_rng(20241).permutation(len(everything))
    start = {"train": 0, "dev": PAIR_COUNTS["train"], "test": PAIR_COUNTS["train"] + PAIR_COUNTS["dev"]}[split]
    pairs = []
    for index in order[start : start + PAIR_COUNTS[split]]:
        name, kind, food, area = everything[index]
        source = f"name[{name}], eatType[{kind}], food[{food}], area[{area}]"
        texts = tuple(t.format(name=name, kind=kind, food=food, place=AREAS[area]) for t in TEMPLATES)
        pairs.append((source, texts, kind))
    return tuple(pairs)


def content_checksum(generator: str) -> str:
    """sha256 over everything that a generator draws, in the order of its splits."""
    total = hashlib.sha256()
    if generator == "toy_shapes":
        for split in SHAPE_COUNTS:
            images, labels = toy_shapes(split)
            total.update(images.tobytes())
            total.update(labels.astype("<i8").tobytes())
    elif generator == "toy_pairs":
        for split in PAIR_COUNTS:
            total.update(repr(toy_pairs(split)).encode())
    else:
        raise KeyError(generator)
    return total.hexdigest()
