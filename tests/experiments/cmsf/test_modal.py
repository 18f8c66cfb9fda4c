"""The cross-modal stages at smoke size: what each starts from, what guides it, what is shared; and videos as files."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from effbook import experiments
from effbook.backbones import IMAGE_MEAN, IMAGE_STD
from effbook.cmsf.constraints import Unconstrained
from effbook.cmsf.networks import Networks
from effbook.cmsf.step import MeanShift
from effbook.data import ImageFiles
from effbook.errors import EffbookError
from effbook.exhibits import exhibit, recipe_of
from effbook.experiments.cmsf import modal_inputs, modal_training, recording
from effbook.experiments.cmsf.modal import ModalTrainRecipe
from effbook.experiments.cmsf.modal_evaluation import ModalRecipe
from effbook.experiments.cmsf.modal_inputs import read_part, read_video
from effbook.experiments.cmsf.modal_training import Contrast, Network, kept_network, learn, make_method, trained
from effbook.experiments.cmsf.stages import needed
from effbook.runs.profiles import scale
from effbook.runs.recipe import Context
from effbook.training.views import Batch

experiments.load()
BOTH = ("infonce-rgb", "infonce-flow")


def smoke(*stages, cls=ModalTrainRecipe, **fields):
    return dataclasses.replace(scale(cls(stages=stages), "smoke"), **fields)


def context(folder):
    return Context(profile="smoke", folder=folder)


def weights(recipe, folder):
    return load_file(trained(recipe, context(folder)) / "network.safetensors")


def same(one, other):
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_a_stage_comes_from_its_own_modality_and_from_what_guides_it():
    long = ("infonce-rgb", "msf-rgb", "infonce-flow", "cmsf-rgb", "coclr-rgb", "cmsf-flow")
    assert needed(long) == long
    assert needed(long[:3]) == ("infonce-flow",)
    assert needed((*long[:3], "msf-flow")) == ("infonce-flow", "msf-flow")
    assert needed(("infonce-flow", "msf-flow", "infonce-rgb", "cmsf-rgb")) == (
        "infonce-flow",
        "msf-flow",
        "infonce-rgb",
        "cmsf-rgb",
    )
    chain = [one.stages for one in smoke(*BOTH, "cmsf-rgb", "cmsf-flow").chain()]
    assert chain == [
        ("infonce-rgb",),
        ("infonce-flow",),
        (*BOTH, "cmsf-rgb"),
        (*BOTH, "cmsf-rgb", "cmsf-flow"),
    ]


def test_the_table_trains_each_of_its_stages_once(tmp_path, monkeypatch):
    calls = []

    def counted(recipe, *args):
        calls.append(recipe.stages)
        learn(recipe, *args)

    monkeypatch.setattr(modal_training, "learn", counted)
    table = exhibit("tab-A.4")
    made = {row.id: recipe_of(table, row, table.column("recall")) for row in table.rows}
    assert made["infonce-flow"] == made["infonce-flow-coclr"] == made["infonce-flow-cmsf"]
    assert len(set(made.values())) == 8
    for recipe in dict.fromkeys(made.values()):
        less = {"train_images": 64, "infonce_epochs": 1, "test_images": 20}
        metrics = dataclasses.replace(scale(recipe, "smoke"), **less).run(context(tmp_path)).metrics
        assert set(metrics) == {"recall", "linear"}
        assert all(0 <= value <= 100 for value in metrics.values())
    assert len(calls) == len(set(calls)) == 8
    assert {calls[place][-1] for place in range(8)} == {
        f"{method}-{modality}" for method in ("infonce", "msf", "coclr", "cmsf") for modality in ("rgb", "flow")
    }


def test_what_a_run_shares_with_others_is_what_it_keeps(tmp_path):
    recipe = smoke(*BOTH, "cmsf-rgb", cls=ModalRecipe)
    recipe.run(context(tmp_path))
    for shared in recipe.shares():
        assert context(tmp_path).kept(shared.kind, shared.parts, recipe.training()) is not None
    assert recipe.cost().seconds > sum(shared.seconds for shared in recipe.shares())


def test_each_stage_tells_how_it_went_and_moves_on_from_the_one_before(tmp_path):
    state = torch.get_rng_state()
    result = smoke(*BOTH, "cmsf-flow").run(context(tmp_path))
    assert torch.equal(torch.get_rng_state(), state)
    assert result.metrics["loss"] > 0
    assert 0 <= result.metrics["purity_constrained"] <= 100
    assert len(result.series["loss"]) == 1
    before, after = weights(smoke("infonce-flow"), tmp_path), weights(smoke(*BOTH, "cmsf-flow"), tmp_path)
    assert set(before) == set(after)
    moved = max(float((before[name] - after[name]).abs().max()) for name in before if name.endswith("weight"))
    assert 0 < moved < 0.1  # six steps of Adam from where it was, and no new draw
    assert torch.equal(before["encoder.filters"], after["encoder.filters"])


def test_a_constraint_as_wide_as_the_bank_is_none_and_the_query_alone_needs_no_other_modality(tmp_path):
    one_length = {"infonce_epochs": 1, "msf_epochs": 1, "epochs": 1, "train_images": 64}
    for fields in ({"k": 3, "k_prime": 48}, {"k": 1, "k_prime": 1}):
        cross = weights(smoke(*BOTH, "cmsf-rgb", **one_length, **fields), tmp_path)
        plain = weights(smoke("infonce-rgb", "msf-rgb", **one_length, **fields), tmp_path)
        assert same(cross, plain)
    narrow = weights(smoke(*BOTH, "cmsf-rgb", **one_length, k=3, k_prime=6), tmp_path)
    free = weights(smoke("infonce-rgb", "msf-rgb", **one_length, k=3, k_prime=6), tmp_path)
    assert not same(narrow, free)


def small(seed):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 8))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for value in encoder.parameters():
            value.normal_()
    encoder.num_features = 8
    return Network(encoder, seed=seed)


def batches(count=6):
    draw = torch.Generator().manual_seed(0)
    for place in range(count):
        strong, weak, extra = torch.randn(3, 16, 1, 3, 4, generator=draw)
        yield Batch(16 * place + torch.arange(16), (strong,), weak, torch.full((16,), -1), extra)


def test_the_other_network_stays_as_it_is_and_gets_no_gradient():
    for stage in ("coclr-rgb", "cmsf-rgb"):
        network, frozen = small(0), small(1).requires_grad_(False).eval()
        before = {name: value.clone() for name, value in frozen.state_dict().items()}
        method = make_method(smoke(*BOTH, stage), network, frozen, images=96)
        optimiser = torch.optim.Adam(method.trained(), 0.01)
        assert not {id(p) for p in method.trained()} & {id(p) for p in frozen.parameters()}
        assert not any("other" in name for name in method.state_dict())
        method.train()
        for batch in batches():
            optimiser.zero_grad()
            method.loss(batch).backward()
            optimiser.step()
        assert not frozen.training
        assert same(before, frozen.state_dict())
        assert all(p.grad is None for p in frozen.parameters())
        assert not same(small(0).state_dict(), network.state_dict())


def test_the_own_modality_as_the_other_one_is_mean_shift():
    """Where w is u itself, the k' = k nearest of w are the k nearest of u."""
    losses = []
    for stage in ("cmsf-rgb", "msf-rgb"):
        recipe = smoke(*BOTH, stage, k=4, k_prime=4, momentum=0.5)
        method = make_method(recipe, small(0), small(1) if stage == "cmsf-rgb" else None, images=96)
        if stage == "cmsf-rgb":
            method.other = [method.networks.target]
        losses.append([])
        for batch in batches():
            loss = method.loss(batch._replace(extra=batch.weak))
            losses[-1].append(loss.item())
            method.networks.zero_grad()
            loss.backward()
            with torch.no_grad():
                for p in method.trained():
                    p -= 0.05 * p.grad
    assert isinstance(method, MeanShift)
    assert isinstance(method.constraint, Unconstrained)
    assert losses[0] == losses[1]


def contrast_by_hand(q, w, bank, other, k):
    """CoCLR's loss of the text, one query at a time; bank and other list the vectors of all batches so far."""
    losses = []
    for i in range(len(q)):
        place = len(bank) - len(q) + i
        near = sorted(range(len(bank)), key=lambda j: -float(w[i] @ other[j]))
        positives = [place, *[j for j in near if j != place][:k]]
        powers = torch.stack([((q[i] @ entry).double() / 0.07).exp() for entry in bank])
        losses.append(-(powers[positives].sum() / powers.sum()).log())
    return float(torch.stack(losses).mean())


@pytest.mark.parametrize("k", [0, 5])
def test_coclr_is_the_loss_of_its_text_and_with_the_query_alone_infonce(k):
    def contrast(network, **other):
        heads = {"projector_head": network.projector, "predictor_head": nn.Identity()}
        networks = Networks(network.encoder, 8, **heads)
        return Contrast(networks, network.dim, bank_size=96, k=k, momentum=0.9, seed=0, **other)

    frozen = small(1).requires_grad_(False).eval()
    cross, plain = contrast(small(0), other=frozen, other_dim=frozen.dim), contrast(small(0))
    bank, other = [], []
    for batch in batches(3):
        loss, alone = cross.loss(batch).item(), plain.loss(batch).item()
        with torch.no_grad():
            (q,), u = cross.networks.online(batch.strong), cross.networks.target(batch.weak)
        w = frozen(batch.extra)
        bank, other = [*bank, *u], [*other, *w]
        assert loss == pytest.approx(contrast_by_hand(q, w, bank, other, k), abs=1e-4)
        assert alone == pytest.approx(contrast_by_hand(q, w, bank, other, 0), abs=1e-4)


@pytest.mark.parametrize("stage", ["infonce-flow", "coclr-flow", "cmsf-flow"])
def test_a_stage_killed_in_its_third_epoch_resumes_to_the_bit(tmp_path, monkeypatch, stage):
    stages = (stage,) if stage.startswith("infonce") else (*BOTH, stage)
    recipe = smoke(*stages, infonce_epochs=3 if len(stages) == 1 else 1, epochs=3, train_images=64)
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    learn(recipe, context(tmp_path / "a"), tmp_path / "whole")
    monkeypatch.setattr(Context, "due", lambda self, seconds=0: True)
    look = recording.Recorder.look

    def killed(self, moment):
        if moment.epoch == 2:
            raise KeyboardInterrupt
        look(self, moment)

    monkeypatch.setattr(recording.Recorder, "look", killed)
    with pytest.raises(KeyboardInterrupt):
        learn(recipe, context(tmp_path / "b"), tmp_path / "cut")
    monkeypatch.setattr(recording.Recorder, "look", look)
    learn(recipe, context(tmp_path / "b"), tmp_path / "cut")
    whole, cut = (load_file(tmp_path / name / "network.safetensors") for name in ("whole", "cut"))
    assert same(whole, cut)
    assert len(json.loads((tmp_path / "cut" / "history.json").read_text())["epochs"]) == 3


def test_a_checkpoint_of_an_earlier_stage_is_left_alone(tmp_path, monkeypatch):
    recipe = smoke("infonce-flow", "msf-flow", msf_epochs=2, train_images=64)
    apart = weights(recipe, tmp_path / "a")
    monkeypatch.setattr(Context, "due", lambda self, seconds=0: True)
    monkeypatch.setenv("EFFBOOK_WORK", str(tmp_path / "other"))
    assert same(apart, weights(recipe, tmp_path / "b"))
    assert (tmp_path / "b" / "checkpoint.pt").is_file()


def test_the_two_parts_of_an_image_are_seen_by_networks_of_their_own(tmp_path):
    images = read_part(smoke("infonce-rgb"), context(tmp_path), "train", wanted=96, seed=0)
    (batch,) = images.views("rgb", other=True).batches([torch.arange(16)], epoch=0)
    assert batch.strong[0].shape == batch.weak.shape == (16, 1, 20, 20)
    assert batch.extra.shape == (16, 2, 20, 20)
    (alone,) = images.views("rgb", other=False).batches([torch.arange(16)], epoch=0)
    assert alone.extra is None
    assert torch.equal(alone.weak, batch.weak)
    assert (batch.label == -1).all()
    for modality, channels in (("rgb", 1), ("flow", 2)):
        network = kept_network(smoke(f"infonce-{modality}"), trained(smoke(f"infonce-{modality}"), context(tmp_path)))
        assert network.encoder.filters.shape[1] == channels
        assert not any(p.requires_grad for p in network.parameters())
        x, y = images.features(network.encoder, modality)
        assert x.shape == (96, network.encoder.num_features)
        assert y.shape == (96,)


# ------------------------------------------------------------------------------------------------------------- videos


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Four tiny videos in which a texture moves right (label 0) or down (label 1), and one that is broken."""
    cv2 = pytest.importorskip("cv2")
    folder = tmp_path_factory.mktemp("videos")
    texture = cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 255, (120, 120, 3)), (0, 0), 2)
    texture = ((texture - texture.min()) / (texture.max() - texture.min()) * 255).astype(np.uint8)
    paths = []
    for i in range(4):
        path = folder / f"{i}.avi"
        codec = cv2.VideoWriter.fourcc(*"MJPG")
        video = cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, codec, 25.0, (48, 40))
        for t in range(13 + 5 * (i % 2)):
            top, left = (60 - 2 * t, 40) if i % 2 else (40, 60 - 2 * t)
            video.write(np.roll(texture, 7 * i, axis=1)[top : top + 40, left : left + 48])
        video.release()
        paths.append(path)
    paths.insert(2, folder / "broken.avi")
    paths[2].write_bytes(b"no video")
    return ImageFiles(paths=tuple(paths), labels=np.array([0, 1, 0, 0, 1]), classes=("right", "down"))


@pytest.fixture
def videos(tree, monkeypatch):
    monkeypatch.setenv("EFFBOOK_WORK", str(tree.paths[0].parent / "work"))  # flow is slow: once for all
    monkeypatch.setattr(modal_inputs, "list_files", lambda name, part: tree)
    return tree


def tiny(*stages, cls=ModalTrainRecipe):
    epochs = {"infonce_epochs": 1, "msf_epochs": 1, "epochs": 1}
    return cls(stages=stages, image_px=32, frames=16, bank=4, batch_size=4, k=2, k_prime=3, **epochs)


def test_the_flow_of_each_video_is_kept_once_beside_its_frames(videos, tmp_path, monkeypatch):
    found = read_part(tiny("infonce-rgb"), context(tmp_path), "train", wanted=None, seed=0)
    assert len(found) == 4
    assert found.broken == {"broken_videos": 1}
    assert found.labels.tolist() == [0, 1, 0, 1]
    for i, (frames, flow) in enumerate(zip(found.files["rgb"], found.files["flow"], strict=True)):
        moving = read_video(flow)
        assert len(moving) == len(read_video(frames)) - 1
        pixels = (moving[:, :2].float() / 255 * 2 - 1) * 20  # back to pixels, of frames at 37 in place of 40
        right, down = pixels[:, :, 8:-8, 8:-8].flatten(2).median(dim=2).values.mean(dim=0).tolist()
        wanted = (0, 2 * 37 / 40) if i % 2 else (2 * 37 / 40, 0)
        assert (right, down) == (pytest.approx(wanted[0], abs=0.4), pytest.approx(wanted[1], abs=0.4))
    monkeypatch.setattr(modal_inputs, "tvl1_flow", lambda clip: pytest.fail("computed again"))
    assert len(read_part(tiny("infonce-flow"), context(tmp_path), "train", wanted=None, seed=0)) == 4


def test_a_mirrored_clip_moves_the_other_way(videos, tmp_path):
    found = read_part(tiny("infonce-flow"), context(tmp_path), "train", wanted=None, seed=0)
    signs = set()
    for epoch in range(8):
        (batch,) = found.views("flow", other=True).batches([torch.tensor([0, 1, 2, 3])], epoch=epoch)
        assert batch.weak.shape == batch.extra.shape == batch.strong[0].shape == (4, 3, 16, 32, 32)
        right, down = batch.weak[:, :2, :8, 8:-8, 8:-8].flatten(2).median(dim=2).values.unbind(1)
        assert (down[1::2] > 0.05).all()  # mirrored or not
        signs |= set(right[::2].sign().tolist())
    assert signs == {-1.0, 1.0}


def test_workers_change_no_clip(videos, tmp_path, monkeypatch):
    found = read_part(tiny("infonce-rgb"), context(tmp_path), "train", wanted=None, seed=0)
    order = [torch.tensor([0, 2]), torch.tensor([3, 1])]
    alone = list(found.views("rgb", other=True).batches(order, epoch=1))
    monkeypatch.setattr(modal_inputs, "_workers", lambda count: 2)
    for one, other in zip(alone, found.views("rgb", other=True).batches(order, epoch=1), strict=True):
        assert torch.equal(one.strong[0], other.strong[0])
        assert torch.equal(one.extra, other.extra)


def test_videos_are_trained_on_and_evaluated_with_s3d(videos, tmp_path):
    metrics = dataclasses.replace(tiny(*BOTH, "cmsf-flow", cls=ModalRecipe), clips=2).run(context(tmp_path)).metrics
    assert all(0 <= metrics[name] <= 100 for name in ("recall", "linear"))
    assert metrics["broken_videos"] == 2
    assert tiny(*BOTH, "cmsf-flow").needs() == ("cuda",)


def test_features_of_a_video_are_the_mean_over_clips_of_its_middle(videos, tmp_path):
    found = read_part(tiny("infonce-rgb"), context(tmp_path), "train", wanted=None, seed=0)
    for modality in ("rgb", "flow"):
        x, y = found.features(nn.Flatten(), modality, 3)
        assert torch.equal(y, found.labels)
        for i, path in enumerate(found.files[modality]):
            frames = read_video(path, short_px=37)[:, :, 2:34, 6:38].double() / 255  # 37 by 44
            starts = (0, 1, 2) if modality == "rgb" else (0, 0, 1)  # of 18 frames, or 17 of flow; 13 are repeated
            starts = starts if i % 2 else (0, 0, 0)
            seen = torch.stack(
                [torch.stack([frames[(start + t) % len(frames)] for t in range(16)]) for start in starts]
            )
            if modality == "rgb":
                mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
                seen = (seen - mean) / deviation
            else:
                seen = (seen - torch.tensor([0.5, 0.5, 0]).view(3, 1, 1)) * 4
            by_hand = seen.mean(0).transpose(0, 1).flatten()
            assert torch.allclose(x[i].double(), by_hand, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"stages": ()}, "the stages are none; name each stage once"),
        ({"stages": ("infonce-rgb", "infonce-rgb")}, "name each stage once"),
        ({"stages": ("infonce-sound",)}, "is not valid"),
        ({"stages": ("msf-rgb",)}, "msf-rgb has no network of rgb before it; put infonce-rgb before it"),
        ({"stages": ("infonce-rgb", "cmsf-rgb")}, "cmsf-rgb has no network of flow before it; put infonce-flow"),
        ({"dataset": "cifar10"}, "rgb-flow, ucf101 and s3d go together"),
        ({"modalities": "luminance-colour", "dataset": "cifar10"}, "go together"),
        ({"bank": 1000}, "no multiple of the batch of 128"),
        ({"k": 11}, "k' = 10 is smaller than k = 11"),
        ({"k_prime": 9000}, "a bank of 8192 is smaller than k = 9000"),
    ],
)
def test_what_cannot_be_trained_is_refused(fields, sentence):
    with pytest.raises(EffbookError, match=sentence):
        ModalRecipe(**fields)


@pytest.mark.parametrize("profile", ["smoke", "mini", "lab", "paper"])
def test_a_probe_caps_a_run_under_every_profile(profile):
    scaled = scale(ModalRecipe(stages=(*BOTH, "cmsf-rgb")), profile)
    capped = dataclasses.replace(scaled, **scaled.probe())
    assert max(capped.infonce_epochs, capped.msf_epochs, capped.epochs) <= 2
    assert capped.train_images <= 4 * capped.batch_size
    assert (scaled.modalities == "rgb-flow") == (profile == "paper")
