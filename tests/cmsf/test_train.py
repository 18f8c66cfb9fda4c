"""The training loop: order, resuming to the bit, refusals; and fit, on data of one's own."""

import copy
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import TensorDataset

import effbook
from effbook.cmsf import PreviousEpoch, SameLabel, fit, fitting
from effbook.cmsf.config import MeanShiftSettings
from effbook.cmsf.networks import Networks
from effbook.cmsf.step import MeanShift
from effbook.errors import EffbookError
from effbook.training.seeds import generator
from effbook.training.settings import TrainSettings
from effbook.training.train import train
from effbook.training.views import Views

IMAGES, WIDE = 36, 8
SETTINGS = TrainSettings(epochs=3, batch=8, learning_rate=0.1)


def encoder(*, wide=WIDE, dropout=0.3, batch_norm=True):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        between = [nn.BatchNorm1d(wide)] if batch_norm else []
        return nn.Sequential(nn.Flatten(), nn.Linear(12, wide), *between, nn.ReLU(), nn.Dropout(dropout))


def images(count=IMAGES):
    return torch.rand(count, 3, 2, 2, generator=torch.Generator().manual_seed(1))


def noisy(x, draw):
    return x + 0.1 * torch.randn(x.shape, generator=draw)


def data(**options):
    return Views(TensorDataset(images(), torch.arange(IMAGES) % 3), strong=noisy, weak=noisy, **options)


def method(**options):
    settings = MeanShiftSettings(k=3, bank_size=16, unconstrained_half=True)
    networks = Networks(encoder(**options), options.get("wide", WIDE), seed=1)
    return MeanShift(networks, PreviousEpoch(k=3, k_prime=3), settings, images=IMAGES)


def flat(state, name=""):
    """All tensors and numbers of a nested state, by their path."""
    if isinstance(state, dict | list | tuple):
        pairs = state.items() if isinstance(state, dict) else enumerate(state)
        return {k: v for key, value in pairs for k, v in flat(value, f"{name}/{key}").items()}
    return {name: state}


def assert_same(left, right):
    left, right = flat(left), flat(right)
    assert left.keys() == right.keys()
    for name, value in left.items():
        equal = torch.equal(value, right[name]) if isinstance(value, torch.Tensor) else value == right[name]
        assert equal, name


def test_a_resumed_training_is_the_same_to_the_bit(tmp_path):
    states = []
    before = torch.get_rng_state()
    whole = train(method(), data(), SETTINGS, keep=lambda state: states.append(copy.deepcopy(state)))
    assert torch.equal(torch.get_rng_state(), before)
    torch.save(states[0], tmp_path / "state.pt")
    again = []
    found = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = train(method(), data(), SETTINGS, resume=found, keep=lambda state: again.append(copy.deepcopy(state)))
    assert resumed == whole
    assert len(again) == 2
    assert_same(states[-1], again[-1])


def test_a_state_holds_tensors_and_plain_values_alone():
    states = []
    train(method(), data(), TrainSettings(epochs=1, batch=8), keep=states.append)
    kinds = {type(value) for value in flat(states[0]).values()}
    assert kinds <= {torch.Tensor, int, float, bool, str, type(None)}
    names = flat(states[0]).keys()
    for part in ("bank/embeddings", "bank/pointer", "cache/embeddings", "target_encoder", "predictor", "momentum"):
        assert any(part in name for name in names), part


def test_the_order_of_an_epoch_depends_on_seed_and_number_alone():
    class Watched:
        def __init__(self):
            self.orders = []

        def __len__(self):
            return IMAGES

        def batches(self, order, *, epoch):
            self.orders.append(torch.cat(list(order)).tolist())
            return data().batches(order, epoch=epoch)

    runs = {}
    for seed in (0, 0, 1):
        watched = Watched()
        train(method(), watched, TrainSettings(epochs=2, batch=8, seed=seed))
        assert all(len(set(order)) == 32 for order in watched.orders)  # the last, partial batch is dropped
        assert runs.setdefault(seed, watched.orders) == watched.orders
    assert runs[0] != runs[1]
    assert runs[0][0] != runs[0][1]


def test_watch_sees_each_step():
    moments = []
    history = train(method(), data(), SETTINGS, watch=moments.append)
    assert [(m.epoch, m.step, m.steps) for m in moments] == [(e, s, 4) for e in range(3) for s in (1, 2, 3, 4)]
    assert history[1]["loss"] == pytest.approx(sum(m.loss for m in moments[4:8]) / 4)
    assert moments[4].rate == pytest.approx(0.1 * 0.75)


def test_any_module_with_a_loss_can_be_trained():
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(encoder(), nn.Linear(WIDE, 3))

        def trained(self):
            return list(self.parameters())

        def loss(self, batch):
            return nn.functional.cross_entropy(self.net(batch.strong[0]), batch.label)

    history = train(Classifier(), data(), SETTINGS)
    assert history[-1]["loss"] < history[0]["loss"]


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(EffbookError, match="36 images are fewer than a batch of 64"):
        train(method(), data(), TrainSettings(epochs=1, batch=64))
    with pytest.raises(EffbookError, match="a bank of 16 is no multiple of the batch of 6"):
        train(method(), data(), TrainSettings(epochs=1, batch=6))
    with pytest.raises(EffbookError, match=r"the loss is nan at step . of epoch 1; lower the learning rate"):
        train(method(), data(), TrainSettings(epochs=1, batch=8, learning_rate=1e38))


def test_resuming_with_other_settings_or_another_network_is_refused():
    states = []
    train(method(), data(), TrainSettings(epochs=2, batch=8), keep=lambda state: states.append(copy.deepcopy(state)))
    with pytest.raises(EffbookError, match="made with batch 8, not 4; resume with batch 8"):
        train(method(), data(), TrainSettings(epochs=2, batch=4), resume=states[0])
    with pytest.raises(EffbookError, match="the checkpoint is of another network or method"):
        train(method(wide=16), data(), TrainSettings(epochs=2, batch=8), resume=states[0])
    with pytest.raises(EffbookError, match="the checkpoint lacks history, made_with"):
        train(method(), data(), TrainSettings(epochs=2, batch=8), resume={"method": {}, "optimiser": {}})


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("method", "_extra_state", "bank", "embeddings"), torch.zeros(3, 2), "another network or method"),
        (("method", "_extra_state", "cache"), None, "another network or method"),
        (("method", "networks.projector.0.weight"), torch.zeros(2), "another network or method"),
        (("optimiser", "state", 0, "momentum_buffer"), torch.zeros(3), "optimiser or history is of another training"),
        (("optimiser", "param_groups"), [], "optimiser or history is of another training"),
        (("made_with", "learning_rate"), 0.3, "made with learning_rate 0.3, not 0.05"),
        (("made_with", "mean shift's constraint"), "SameLabel()", r"constraint SameLabel\(\), not PreviousEpoch"),
        (("made_with", "mean shift's momentum"), 0.5, "momentum 0.5, not 0.99"),
        (("history",), 3, "the checkpoint lacks history"),
    ],
)
def test_of_a_checkpoint_that_does_not_fit_nothing_is_taken(path, value, sentence):
    settings, states = TrainSettings(epochs=2, batch=8), []
    train(method(), data(), settings, keep=lambda state: states.append(copy.deepcopy(state)))
    state = states[0]
    *above, last = path
    inner = state
    for name in above:
        inner = inner[name]
    inner[last] = value
    one = method()
    before = copy.deepcopy(one.state_dict())
    with pytest.raises(EffbookError, match=sentence):
        train(one, data(), settings, resume=state)
    assert_same(before, one.state_dict())


def test_fit_refuses_a_file_that_is_no_checkpoint_or_of_another_training(tmp_path):
    options = {"batch": 8, "strong": noisy, "weak": noisy, "epochs": 2}
    path = tmp_path / "state.pt"
    for content in (b"", b"no checkpoint", b"PK\x03\x04 cut"):
        path.write_bytes(content)
        with pytest.raises(EffbookError, match=r"state.pt is no whole checkpoint \(\w+\); delete it to start anew"):
            fit(encoder(), images(), constraint=SameLabel(k=2), checkpoint=path, **options)
    torch.save([1, 2], path)
    with pytest.raises(EffbookError, match="the checkpoint lacks history, made_with, method, optimiser; start anew"):
        fit(encoder(), images(), constraint=SameLabel(k=2), checkpoint=path, **options)
    path.unlink()
    fit(encoder(), images(), constraint=SameLabel(k=2), checkpoint=path, **options)
    net = encoder()
    before = copy.deepcopy(net.state_dict())
    for other in ({"constraint": SameLabel(k=3)}, {"learning_rate": 0.2}, {"bank_size": 16}):
        with pytest.raises(EffbookError, match="the checkpoint was made with "):
            fit(net, images(), checkpoint=path, **({"constraint": SameLabel(k=2)} | options | other))
    assert_same(before, net.state_dict())


# ------------------------------------------------------------------------------- an encoder of one's own


def test_fit_trains_an_encoder_of_ones_own():
    for constraint in (PreviousEpoch(k=3, k_prime=3), SameLabel(k=3)):
        net = encoder(dropout=0.0)
        before = copy.deepcopy(net.state_dict())
        trained, history = fit(net, data().dataset, constraint=constraint, epochs=2, batch=8, strong=noisy, weak=noisy)
        assert trained is net
        assert not torch.equal(before["1.weight"], net.state_dict()["1.weight"])
        assert history[1]["loss"] < history[0]["loss"]


def test_fit_goes_on_from_its_checkpoint(tmp_path):
    path = tmp_path / "folder" / "state.pt"
    options = {"constraint": PreviousEpoch(k=3, k_prime=3), "batch": 8, "strong": noisy, "weak": noisy, "epochs": 3}
    _, whole = fit(encoder(), images(), **options)

    def stop(method, moment):
        if moment.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(encoder(), images(), checkpoint=path, watch=stop, **options)
    seen = []
    _, resumed = fit(
        encoder(), images(), checkpoint=path, watch=lambda method, moment: seen.append(moment.epoch), **options
    )
    assert resumed == whole
    assert min(seen) == 1
    assert [p.name for p in path.parent.iterdir()] == ["state.pt"]


def test_an_encoder_without_pooling_is_told_so():
    with pytest.raises(EffbookError, match=r"the encoder gives \(2, 4, 2, 2\) for two images; end it with pooling"):
        fit(nn.Conv2d(3, 4, 1), images(), constraint=SameLabel(k=1), batch=8, strong=noisy, weak=noisy)


# ------------------------------------------------------------------------------- several processes


def test_batch_norm_is_synchronised_where_several_processes_train_on_gpus(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert not fitting._synchronised(True, cuda)  # one process
    monkeypatch.setattr(fitting, "world_size", lambda: 2)
    assert fitting._synchronised(True, cuda)
    assert not fitting._synchronised(False, cpu)
    with pytest.raises(EffbookError, match="synchronised between processes on GPUs only; leave out sync_batch_norm"):
        fitting._synchronised(True, cpu)

    class Told(Exception):
        pass

    def told(*_, sync_batch_norm, **__):
        raise Told(sync_batch_norm)

    monkeypatch.setattr(fitting, "Networks", told)
    monkeypatch.setattr(fitting, "_synchronised", lambda wanted, device: wanted)
    for wanted in (True, False):
        options = {"constraint": SameLabel(k=1), "batch": 8, "strong": noisy, "weak": noisy}
        with pytest.raises(Told, match=str(wanted)):
            fit(encoder(), images(), sync_batch_norm=wanted, **options)


def train_here(folder):
    """What each process of the test below runs; with one process, the same training with the whole batch."""
    torch.set_num_threads(1)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("gloo")

    def views(x, draw):  # without draws, which differ with the part of a batch that a process has
        return x * 1.5

    heads = [nn.Sequential(nn.Linear(a, 16), nn.ReLU(), nn.Linear(16, 2)) for a in (WIDE, 2)]
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(int(os.environ.get("RANK", "0")))  # other weights in each process: the first's must win
        for p in (p for head in heads for p in head.parameters()):
            p.normal_()
    networks = Networks(encoder(dropout=0.0, batch_norm=False), WIDE, projector_head=heads[0], predictor_head=heads[1])
    settings = MeanShiftSettings(k=3, bank_size=16, unconstrained_half=True, momentum=0.9)
    one = MeanShift(networks, PreviousEpoch(k=3, k_prime=3), settings, images=IMAGES)
    own = Views(TensorDataset(images(), torch.arange(IMAGES) % 3), strong=lambda x, draw: x, weak=views)
    losses, states = [], []
    train(one, own, SETTINGS, watch=lambda moment: losses.append(moment.loss), keep=states.append)
    rank = os.environ.get("RANK", "0")
    torch.save({"losses": losses, "bank": one.bank.state_dict(), "states": len(states)}, Path(folder) / f"{rank}.pt")
    if dist.is_initialized():
        torch.save(shuffling().target(images(8).chunk(2)[int(rank)], shuffle_key=(4, 5)), Path(folder) / f"u-{rank}.pt")
    torch.save(sum(p.detach().double().sum() for p in one.trained()), Path(folder) / f"weights-{rank}.pt")
    if dist.is_initialized():
        dist.destroy_process_group()


def shuffling():
    """Networks with batch norm, whose target is put in training mode."""
    return Networks(encoder(dropout=0.0), WIDE, seed=1).train()


@pytest.mark.slow
def test_two_processes_train_as_one_does_with_the_whole_batch(tmp_path):
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_train; test_train.train_here(sys.argv[2])"
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    known = os.environ | {"PYTHONPATH": str(Path(effbook.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    known |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    (tmp_path / "two").mkdir()
    two = [
        subprocess.Popen([*command, str(tmp_path / "two")], env=known | {"RANK": str(rank)}, stderr=subprocess.PIPE)
        for rank in (0, 1)
    ]
    try:
        train_here(tmp_path)
        for process in two:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors.decode()[-2000:]
    finally:
        for process in two:
            process.kill()
    alone = torch.load(tmp_path / "0.pt", weights_only=True)
    parts = [torch.load(tmp_path / "two" / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for part in parts:
        assert part["losses"] == pytest.approx(alone["losses"], rel=1e-4)
        assert part["bank"]["index"].tolist() == alone["bank"]["index"].tolist()
        torch.testing.assert_close(part["bank"]["embeddings"], alone["bank"]["embeddings"], rtol=1e-4, atol=1e-5)
    assert torch.equal(parts[0]["bank"]["embeddings"], parts[1]["bank"]["embeddings"])
    assert torch.equal(*(torch.load(tmp_path / "two" / f"weights-{rank}.pt", weights_only=True) for rank in (0, 1)))
    order = torch.randperm(8, generator=generator(4, 5))
    assert order.tolist() != list(range(8))
    expected = torch.empty(8, WIDE // 4)
    for half in order.chunk(2):  # each process's batch norm sees one half of the shuffled images
        expected[half] = shuffling().target(images(8)[half])
    found = torch.cat([torch.load(tmp_path / "two" / f"u-{rank}.pt", weights_only=True) for rank in (0, 1)])
    torch.testing.assert_close(found, expected)
    assert [part["states"] for part in parts] == [3, 0]  # the first process alone keeps states


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
