"""CMSF's recipes at smoke size: methods, resuming, sharing, labels, streams, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from effbook import experiments
from effbook.cmsf.pseudo import ClassifierSettings
from effbook.data import ImageFiles
from effbook.data.stream import ImageStream
from effbook.errors import EffbookError
from effbook.exhibits.register import recipe_of, register
from effbook.experiments.cmsf import learning, recording
from effbook.experiments.cmsf.evaluations import FinetuneRecipe, LinearRecipe, NearestRecipe, TransferMeanRecipe
from effbook.experiments.cmsf.inputs import kept_encoder
from effbook.experiments.cmsf.labels import class_count, pseudo_labels, shown_labels
from effbook.experiments.cmsf.overhead import OverheadRecipe
from effbook.experiments.cmsf.recording import NEAREST, QUERIES
from effbook.experiments.cmsf.settings import CLASSIFIER
from effbook.experiments.cmsf.training import TrainRecipe
from effbook.experiments.shared import splits
from effbook.experiments.shared.splits import Split
from effbook.runs.profiles import NotInProfileError, scale
from effbook.runs.recipe import Context
from effbook.training.views import Views

experiments.load()
METHODS = ("none", "byol", "msf", "cmsf-self", "cmsf-sup", "cmsf-semi", "xent", "supcon", "protonw", "paws")
TIMES = {"step_ms", "days"}


def smoke(method, cls=TrainRecipe, **fields):
    labelled = 0.1 if method in ("cmsf-semi", "paws") else 1.0
    return scale(cls(method=method, **{"labelled": labelled} | fields), "smoke")


def trained(recipe, folder):
    """History and weights of a training anew."""
    folder.mkdir()
    learning.learn(recipe, Context(profile="smoke", folder=folder / "run"), folder)
    return (folder / "history.json").read_text(), load_file(folder / "encoder.safetensors")


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_at_smoke_and_a_seed_gives_the_same_numbers_twice(tmp_path, method):
    recipe = smoke(method)
    before = torch.get_rng_state()
    first, second = (trained(recipe, tmp_path / name)[1] for name in "ab")
    assert same(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    metrics = recipe.run(Context(profile="smoke", folder=tmp_path)).metrics
    assert method == "none" or metrics["loss"] > 0 or method == "paws"
    assert all(0 <= value <= 100 for name, value in metrics.items() if name.startswith(("purity", "overlap")))
    assert metrics["trainable"] > 0


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "cmsf-self"},
        {"method": "cmsf-semi", "classifier": "mlp2"},
        {"method": "cmsf-semi", "classifier": "knn"},
        {"method": "supcon"},
        {"method": "paws"},
    ],
    ids=lambda fields: "-".join(fields.values()),
)
def test_a_training_killed_in_its_third_epoch_resumes_to_the_bit(tmp_path, monkeypatch, fields):
    recipe = dataclasses.replace(smoke(**fields), epochs=3, threshold=0.05)
    history, whole = trained(recipe, tmp_path / "whole")
    monkeypatch.setattr(Context, "due", lambda self, seconds=0: True)
    look = recording.Recorder.look

    def killed(self, moment):
        if moment.epoch == 2:
            raise KeyboardInterrupt
        look(self, moment)

    folder = tmp_path / "cut"
    folder.mkdir()
    monkeypatch.setattr(recording.Recorder, "look", killed)
    with pytest.raises(KeyboardInterrupt):
        learning.learn(recipe, Context(profile="smoke", folder=folder / "run"), folder)
    monkeypatch.setattr(recording.Recorder, "look", look)
    learning.learn(recipe, Context(profile="smoke", folder=folder / "run"), folder)
    assert same(whole, load_file(folder / "encoder.safetensors"))
    history, resumed = json.loads(history), json.loads((folder / "history.json").read_text())
    assert all(history[name] == resumed[name] for name in set(history) - TIMES)


def test_the_time_of_a_resumed_training_is_that_of_all_its_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(Context, "due", lambda self, seconds=0: True)
    clock, look = iter(range(10_000)), recording.Recorder.look
    monkeypatch.setattr(recording.time, "perf_counter", lambda: next(clock))  # a second between two looks at it
    recipe = dataclasses.replace(smoke("msf"), epochs=3)

    def killed(self, moment):
        if moment.epoch == 2:
            raise KeyboardInterrupt
        look(self, moment)

    monkeypatch.setattr(recording.Recorder, "look", killed)
    with pytest.raises(KeyboardInterrupt):
        learning.learn(recipe, Context(profile="smoke", folder=tmp_path / "run"), tmp_path)
    monkeypatch.setattr(recording.Recorder, "look", look)
    learning.learn(recipe, Context(profile="smoke", folder=tmp_path / "run"), tmp_path)
    steps = recipe.epochs * (recipe.train_images // recipe.batch_size)
    days = json.loads((tmp_path / "history.json").read_text())["days"]
    assert days * 86_400 >= steps  # a second each, at least


def test_the_first_images_neighbours_are_kept_at_three_moments_and_each_comes_first_itself(tmp_path):
    series = smoke("cmsf-self").run(Context(profile="smoke", folder=tmp_path)).series
    for moment in ("early", "end"):
        for name in ("bank", "constrained"):
            rows = torch.tensor(series[f"nearest_{name}_{moment}"]).view(QUERIES, NEAREST)
            kept = rows[:, 0] >= 0
            assert torch.equal(rows[kept, 0], torch.arange(QUERIES)[kept])
            assert kept.sum() == QUERIES  # 96 images, six batches of 16: all come by
    assert (torch.tensor(series["nearest_bank_end"]) < 96).all()


def test_evaluations_share_one_training(tmp_path, monkeypatch):
    calls, learn = [], learning.learn
    monkeypatch.setattr(learning, "learn", lambda *args: calls.append(args) or learn(*args))
    for recipe in (smoke("msf", NearestRecipe), smoke("msf", LinearRecipe), smoke("msf")):
        metrics = recipe.run(Context(profile="smoke", folder=tmp_path)).metrics
        assert all(0 <= value <= 100 for name, value in metrics.items() if name.startswith(("nn", "top")))
    assert len(calls) == 1


def test_xent_is_judged_by_the_classifier_that_it_trained_itself_on_wrong_labels_too(tmp_path):
    context = Context(profile="smoke", folder=tmp_path)
    recipe = smoke("xent", LinearRecipe, noise=0.5)
    own, layer = (dataclasses.replace(recipe, own_classifier=one).run(context).metrics for one in (True, False))
    assert own != layer
    coarse = [
        dataclasses.replace(recipe, labels="coarse", own_classifier=one).run(context).metrics for one in (True, False)
    ]
    assert coarse[0] == coarse[1]
    folder = learning.trained(recipe, context)
    kept, test = load_file(folder / CLASSIFIER), splits.split("toy-shapes", "test", size_px=28, wanted=40, seed=0)
    network = nn.Sequential(kept_encoder(recipe, folder), nn.Linear(128, len(test.classes)))
    network[1].load_state_dict(kept)
    with torch.no_grad():
        guess = network(splits.normalised(test.images)).argmax(1)
    assert own["top1"] == pytest.approx(100 * (guess == test.labels).double().mean().item())


def split_of(labels, classes):
    return Split(
        images=torch.zeros(len(labels), 3, 4, 4, dtype=torch.uint8),
        labels=labels,
        classes=classes,
        size_px=4,
        drawn=("cifar10", "train", None, 0),
    )


def test_labels_are_coarsened_then_changed_then_taken_away():
    from effbook.data import manifest

    classes = manifest("cifar10").classes
    labels = torch.arange(200) % 10
    whole = split_of(labels, classes)
    recipe = TrainRecipe(method="cmsf-sup", dataset="cifar10")
    assert torch.equal(shown_labels(recipe, whole), labels)
    noisy = shown_labels(dataclasses.replace(recipe, noise=0.25), whole)
    assert int((noisy != labels).sum()) == 50
    few = shown_labels(dataclasses.replace(recipe, labelled=0.1), whole)
    assert few[few >= 0].bincount().tolist() == [2] * 10
    assert torch.equal(few[few >= 0], labels[few >= 0])
    coarse = dataclasses.replace(recipe, labels="coarse")
    found = shown_labels(coarse, whole)
    assert len(found.unique()) == class_count(coarse, whole) < 10
    assert len({(fine, rough) for fine, rough in zip(labels.tolist(), found.tolist(), strict=True)}) == 10
    for method in ("byol", "msf", "cmsf-self", "none"):
        assert (shown_labels(TrainRecipe(method=method, dataset="cifar10"), whole) == -1).all()


@pytest.mark.parametrize("kind", ["knn", "linear", "mlp3"])
def test_a_pseudo_labeller_goes_on_as_it_was(kind):
    from types import SimpleNamespace

    draw = torch.Generator().manual_seed(0)
    recipe = smoke("cmsf-semi", classifier=kind)
    bank = SimpleNamespace(embeddings=torch.zeros(8, 6))
    method = SimpleNamespace(networks=None, bank=bank, constraint=learning.constraint_of(recipe))
    labels = torch.arange(40) % 4
    first, second = (pseudo_labels(recipe, method, labels, 4, None) for _ in range(2))
    first.cache.write(torch.arange(40), torch.randn(40, 6, generator=draw))
    first.after(SimpleNamespace(step=2, steps=4))
    assert first.settings == ClassifierSettings(kind=kind, batch=2)  # 40 labels: 16 steps and more an epoch
    many = pseudo_labels(recipe, method, torch.arange(9000) % 4, 4, None)
    assert many.settings == ClassifierSettings(kind=kind)
    second.load_state_dict(first.state_dict())
    x = torch.randn(9, 6, generator=draw)
    assert torch.equal(first.classifier(x), second.classifier(x))
    assert second.rounds == 1


@pytest.fixture
def streamed(tmp_path, monkeypatch):
    """A data set of 40 files of several sizes in place of toy-shapes, of which the third is broken."""
    draw = np.random.default_rng(0)
    paths = []
    for i in range(40):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(draw.integers(0, 256, (36 + i % 3, 40, 3), dtype=np.uint8)).save(paths[-1])
    paths[2].write_bytes(b"no image")
    files = ImageFiles(paths=tuple(paths), labels=np.arange(40) % 4, classes=tuple("abcd"))
    monkeypatch.setitem(splits.FILE_READERS, "toy-shapes", None)
    monkeypatch.setattr(splits, "list_files", lambda name, part: files)
    return files


@pytest.mark.parametrize("method", ["cmsf-self", "paws", "cmsf-semi"])
def test_files_are_streamed_and_broken_ones_counted(streamed, tmp_path, method):
    recipe = smoke(method, NearestRecipe, caching="offline")
    metrics = dataclasses.replace(recipe, labelled=0.5).run(Context(profile="smoke", folder=tmp_path / "a")).metrics
    assert metrics["broken_images"] == 2  # once in each split
    assert 0 <= metrics["nn1"] <= 100
    own = TrainRecipe(
        **{f.name: getattr(recipe, f.name) for f in dataclasses.fields(TrainRecipe) if f.name != "moment"}
    )
    own = dataclasses.replace(own, labelled=0.5)
    assert own.run(Context(profile="smoke", folder=tmp_path / "b")).metrics["broken_images"] == 1


def as_split(files):
    return Split(
        images=ImageStream(files, lambda image: image),
        labels=torch.from_numpy(files.labels),
        classes=files.classes,
        size_px=28,
        drawn=("x", "train", None, 0),
    )


def test_what_stands_in_for_a_broken_file_has_its_own_index_and_label(streamed):
    whole = as_split(streamed)
    data = splits.with_labels(whole, torch.arange(40) + 100)
    assert [tuple(data[i])[1:] for i in (1, 2, 3)] == [(101, 1), (103, 3), (103, 3)]
    views = Views(data, strong=(seen := lambda images, draw: torch.zeros(len(images), 1)), weak=seen)
    (batch,) = views.batches([torch.tensor([2, 5])], epoch=0)
    assert (batch.index.tolist(), batch.label.tolist()) == ([3, 5], [103, 105])


def test_a_label_that_is_looked_up_by_index_is_no_broken_files(streamed):
    whole = as_split(streamed)
    assert whole.sound(whole.labels.where(torch.arange(40) > 2, -1)).tolist()[:4] == [-1, -1, -1, 3]
    assert not whole.marked.any()  # without a label it is not tried
    fields = {"dataset": "cifar10", "labelled": 1.0}
    for method, caching in (("paws", "online"), ("cmsf-semi", "offline")):
        found = shown_labels(TrainRecipe(method=method, caching=caching, **fields), whole)
        assert (found == -1).nonzero()[:, 0].tolist() == [2]


def test_workers_change_no_number(streamed, tmp_path, monkeypatch):
    recipe = dataclasses.replace(smoke("cmsf-self"), epochs=1)
    _, alone = trained(recipe, tmp_path / "alone")
    monkeypatch.setattr(Split, "workers", 2)
    assert same(alone, trained(recipe, tmp_path / "helped")[1])


def test_fine_tuning_takes_no_label_of_a_broken_file(streamed, tmp_path, monkeypatch):
    from effbook.cmsf import pseudo

    given, finetune = [], pseudo.finetune
    monkeypatch.setattr(
        pseudo, "finetune", lambda net, labels, **more: given.append(labels) or finetune(net, labels, **more)
    )
    recipe = dataclasses.replace(smoke("none", FinetuneRecipe), share=1.0, rounds=1, tuning_epochs=1)
    assert recipe.run(Context(profile="smoke", folder=tmp_path)).metrics["broken_images"] == 2
    assert (given[0] == -1).nonzero()[:, 0].tolist() == [2]


def test_features_of_a_stream_leave_broken_files_out_and_are_of_the_centre(streamed):
    whole = as_split(streamed)
    x, y = splits.features_of(torch.nn.Flatten(), whole, transform=lambda pixels: pixels.float())
    assert x.shape == (39, 3 * 28 * 28)
    assert y.tolist() == [i % 4 for i in range(40) if i != 2]
    image = Image.open(streamed.paths[0])  # 36 high, 40 wide; the shorter side becomes 32
    by_hand = image.resize((35, 32), Image.Resampling.BILINEAR).crop((4, 2, 32, 30))
    assert torch.equal(x[0].view(3, 28, 28), torch.from_numpy(np.array(by_hand)).permute(2, 0, 1).float())


@pytest.mark.parametrize("profile", ["smoke", "mini", "lab", "paper"])
def test_every_row_of_the_exhibits_makes_a_recipe_that_a_probe_caps(profile):
    found = {recipe_of(e, row, column) for e in register().values() for row in e.rows for column in e.columns}
    runs = 0
    for recipe in (r for r in found if r is not None and r.name in RUN):
        try:
            scaled = scale(recipe, profile)
        except NotInProfileError:
            not_packaged = recipe.name == "cmsf-transfer" and profile in ("mini", "lab")
            assert not_packaged or (profile == "mini" and recipe.augmentation == "strong")
            continue
        capped = dataclasses.replace(scaled, **scaled.probe())
        assert capped.epochs <= 2 or recipe.name == "cmsf-overhead"
        assert capped.train_images <= max(4 * capped.batch_size, 512)
        runs += 1
    assert runs > 20


RUN = ("cmsf-train", "cmsf-overhead", "cmsf-nearest", "cmsf-linear", "cmsf-finetune", "cmsf-transfer")


def test_a_search_is_timed_against_none(tmp_path):
    metrics = smoke("cmsf-self", OverheadRecipe).run(Context(profile="smoke", folder=tmp_path)).metrics
    assert min(metrics["step_ms"], metrics["compared_step_ms"]) > 0


@pytest.mark.parametrize(
    ("cls", "fields", "sentence"),
    [
        (TrainRecipe, {"bank": 1000}, "no multiple of the batch of 256; choose one such as 1024"),
        (TrainRecipe, {"k": 200_000}, "a bank of 128000 is smaller than 200000 neighbours"),
        (TrainRecipe, {"k_prime": 300_000}, "smaller than 300000 neighbours"),
        (TrainRecipe, {"k": 5, "k_prime": 4}, "k' = 4 is smaller than k = 5"),
        (TrainRecipe, {"k": None}, "cmsf-self has no top-all"),
        (TrainRecipe, {"method": "xent", "labelled": 0.1}, "xent needs the label of every image"),
        (TrainRecipe, {"labelled": 0.0}, "labelled above 0"),
        (TrainRecipe, {"encoder": "mlp"}, "an MLP and features_of go together"),
        (TrainRecipe, {"encoder": "pixels"}, "raw pixels cannot be trained"),
        (TrainRecipe, {"encoder": "vgg"}, "encoder = 'vgg' is not valid"),
        (TrainRecipe, {"support": 1}, "support of at least 2"),
        (OverheadRecipe, {"method": "xent"}, "xent is no mean shift on images"),
        (TransferMeanRecipe, {"targets": ()}, "no data set has no mean"),
    ],
)
def test_what_cannot_be_trained_is_refused(cls, fields, sentence):
    with pytest.raises(EffbookError, match=sentence):
        cls(**fields)
