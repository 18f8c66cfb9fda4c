"""Five lines with one's own networks: what is learned, what is left alone, resuming, cached teachers, refusals."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from effbook.errors import EffbookError
from effbook.simreg import DistillSettings, DistillViews, Teachers, cached_features, distill

COUNT, M, D = 22, 4, 6
QUICK = {"epochs": 3, "batch": 8, "learning_rate": 0.05}


def network(dim, *, seed, channels=3, pooled=True, dropout=0.0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout)] if pooled else []
        return nn.Sequential(nn.Conv2d(channels, dim, 3), nn.BatchNorm2d(dim), nn.ReLU(), *end)


def teacher(seed=7, dim=D):
    """A network whose running statistics are not those that it would see in training mode."""
    net = network(dim, seed=seed)
    net[1].running_mean.fill_(0.3)
    net[1].running_var.fill_(2.0)
    return net.requires_grad_(True)


def images(count=COUNT, channels=3, seed=1):
    return torch.rand(count, channels, 8, 8, generator=torch.Generator().manual_seed(seed))


def run(*, of=None, student=None, data=None, head="4L", **options):
    kept = {k: options.pop(k) for k in ("cache", "half", "workers", "checkpoint", "watch") if k in options}
    settings = DistillSettings(**{**QUICK, "head": head, **options})
    return distill(
        teacher() if of is None else of,
        network(M, seed=2) if student is None else student,
        images() if data is None else data,
        settings=settings,
        **kept,
    )


def assert_same(one, two):
    assert one.history == two.history
    for left, right in ((one.student, two.student), (one.heads, two.heads)):
        for name, value in left.state_dict().items():
            assert torch.equal(value, right.state_dict()[name]), name


# ------------------------------------------------------------------------------- what is learned


def test_the_student_comes_nearer_and_is_the_callers_own_module():
    student, history, heads = run(student=(own := network(M, seed=2)), epochs=8)
    assert student is own
    assert len(heads) == 1
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert not torch.equal(student[0].weight, network(M, seed=2)[0].weight)


def test_the_exported_student_is_the_plain_backbone():
    student = run().student.eval()
    plain = network(M, seed=0)
    plain.load_state_dict(student.state_dict())  # strict: no parameter or buffer more or less
    costs, outputs = [], []
    for net in (student, plain.eval()):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            outputs.append(net(images()))
        costs.append(counter.get_total_flops())
    assert costs[0] == costs[1] > 0
    assert torch.equal(*outputs)
    assert not any(m._forward_hooks for m in student.modules())


def test_a_student_that_starts_as_the_teacher_with_a_head_of_identity_has_nothing_to_learn():
    of = teacher().eval()
    losses = []

    def identity(method, moment):
        losses.append(moment.loss)
        with torch.no_grad():
            method.student.backbone.load_state_dict(of.state_dict())
            method.student.heads[0][0].weight.copy_(torch.eye(D))
            method.student.heads[0][0].bias.zero_()
        method.student.backbone.eval()

    run(of=of, student=network(D, seed=3), head="linear", watch=identity, weight_decay=0.0, epochs=1)
    assert losses[0] > 0.01
    assert losses[1] == 0


def test_each_teacher_has_a_head_and_their_losses_are_averaged():
    of = [teacher(), teacher(8, dim=5)]
    first = {}

    def keep(method, moment):
        if not first:
            first["loss"] = moment.loss

    several = run(of=of, watch=keep)
    assert [head[-1].out_features for head in several.heads] == [D, 5]
    assert several.history[-1]["loss"] < several.history[0]["loss"]
    assert_same(run(of=teacher()), run(of=[teacher()]))
    twice = run(of=[teacher(), teacher()], head="linear", epochs=1)
    assert not torch.equal(twice.heads[0][0].weight, twice.heads[1][0].weight)  # heads of their own


@pytest.mark.parametrize("objective", ["regress", "regress-bn", "compress-1q", "compress-2q"])
@pytest.mark.parametrize("head", ["linear", "4L"])
def test_every_baseline_learns_with_either_head(objective, head):
    done = run(objective=objective, head=head, queue_size=16, temperature=0.3, epochs=6)
    assert done.history[-1]["loss"] < done.history[0]["loss"]
    assert len(done.student.state_dict()) == len(network(M, seed=0).state_dict())


def test_a_distillation_draws_from_its_seed_alone():
    before = torch.get_rng_state()
    one, again = (run(student=network(M, seed=2, dropout=0.5)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert_same(one, again)
    assert run(seed=1).history != run().history


def test_the_teacher_is_left_as_it_was():
    of = teacher()
    of[1].eval()
    before = copy.deepcopy(of.state_dict())
    run(of=of)
    assert all(torch.equal(value, before[name]) for name, value in of.state_dict().items())
    assert (of.training, of[1].training) == (True, False)
    assert all(p.grad is None and p.requires_grad for p in of.parameters())


def test_mixed_precision_comes_near():
    plain, mixed = run(), run(precision="bfloat16")
    assert mixed.history[0]["loss"] == pytest.approx(plain.history[0]["loss"], rel=0.05)
    assert mixed.student[0].weight.dtype == torch.float32


@pytest.mark.parametrize("objective", ["simreg", "regress-bn", "compress-2q"])
def test_a_resumed_distillation_is_the_same_to_the_bit(objective, tmp_path):
    options = {"objective": objective, "queue_size": 16, "same": False}
    whole = run(student=network(M, seed=2, dropout=0.5), **options)
    path = tmp_path / "state.pt"

    def stop(method, moment):
        if moment.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(student=network(M, seed=2, dropout=0.5), checkpoint=path, watch=stop, **options)
    resumed = run(student=network(M, seed=9, dropout=0.5), checkpoint=path, **options)
    assert_same(resumed, whole)


# ------------------------------------------------------------------------------- cached teachers


@pytest.mark.parametrize("distinct", [1, 2])
@pytest.mark.parametrize("form", [images(), [(image, 0) for image in images()]])
def test_cached_features_train_the_same_student_to_the_bit(form, distinct, tmp_path):
    options = {"distinct_views": distinct, "data": form, "head": "2L"}
    plain = run(**options)
    assert_same(run(cache=tmp_path / "a", **options), plain)  # computed
    calls = []
    of = teacher()
    of.register_forward_hook(lambda *_: calls.append(1))
    assert_same(run(of=of, cache=tmp_path / "a", **options), plain)  # read
    assert len(calls) == 1  # a look at its width
    assert plain.history != run(**options | {"distinct_views": None}).history


def test_features_of_another_number_of_images_or_views_are_not_used():
    data = DistillViews(images(), DistillSettings(distinct_views=2))
    data.use([np.zeros((2, COUNT, D), np.float32), np.ones((2, COUNT, 1), np.float32)])
    (batch,) = data.batches([torch.tensor([3, 1])], epoch=5)
    assert batch.extra.tolist() == [[0.0] * D + [1.0]] * 2
    assert batch.weak.shape[0] == 0
    for shape in ((1, COUNT, D), (2, COUNT + 1, D)):
        with pytest.raises(EffbookError, match="are not of 2 views of 22 images; compute them with these settings"):
            data.use([np.zeros(shape, np.float32)])


def test_a_cache_of_one_view_serves_every_head_and_setting_of_the_student(tmp_path):
    for options in ({"head": "linear"}, {"objective": "compress-1q", "queue_size": 16}, {"same": False}):
        run(cache=tmp_path / "a", **options)
    different = run(cache=tmp_path / "a", same=False, distinct_views=1)
    assert_same(run(same=False, distinct_views=1), different)


def test_several_teachers_have_a_cache_each(tmp_path):
    of = [teacher(), teacher(8, dim=5)]
    cached = run(of=of, cache=[tmp_path / "a", tmp_path / "b"])
    assert_same(run(of=of, distinct_views=1), cached)
    with pytest.raises(EffbookError, match="1 caches for 2 teachers; give each teacher a folder of its own"):
        run(of=of, cache=tmp_path / "a")


def test_half_precision_takes_half_the_bytes_and_comes_near(tmp_path):
    whole, half = run(cache=tmp_path / "a"), run(cache=tmp_path / "b", half=True)
    assert half.history[0]["loss"] == pytest.approx(whole.history[0]["loss"], rel=1e-2)
    data = DistillViews(images(), DistillSettings(distinct_views=1, **QUICK))
    found = cached_features(tmp_path / "b", teacher(), data, dim=D, half=True)
    assert (found.dtype, found.shape) == ("float16", (1, COUNT, D))
    with pytest.raises(EffbookError, match="are of another type"):
        run(cache=tmp_path / "a", half=True)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"of": teacher(8)}, "are of another teacher; name another folder"),
        ({"data": images(seed=2)}, "are of other images"),
        ({"data": images(count=21)}, "are of other images"),
        ({"seed": 1}, r"are of other views \(seed: 0, not 1\)"),
        ({"distinct_views": 2}, r"are of other views \(distinct: 1, not 2\)"),
        ({"teacher_view": "strong", "same": False}, r"are of other views \(view: "),
        ({"mean": (0.5,) * 3, "deviation": (0.5,) * 3}, r"are of other views \(mean: "),
    ],
)
def test_cached_features_of_something_else_are_refused(options, told, tmp_path):
    run(cache=tmp_path / "a", epochs=1)
    with pytest.raises(EffbookError, match=told):
        run(cache=tmp_path / "a", **options)


def of_another_width(folder):
    np.save(folder / "features.npy", np.zeros((1, COUNT, D + 1), np.float32))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f: (f / "features.npy").unlink(), "holds no cached features; name a folder of its own"),
        (lambda f: (f / "features.npy").write_bytes(b""), "holds no cached features"),
        (lambda f: (f / "features.npy").write_bytes(b"of another kind"), "holds no cached features"),
        (lambda f: (f / "features.npy").write_bytes((f / "features.npy").read_bytes()[:-8]), "holds no cached feat"),
        (lambda f: (f / "made_with.json").write_text("[]"), "holds no cached features"),
        (lambda f: (f / "made_with.json").write_text('{"views": 1}'), "holds no cached features"),
        (of_another_width, r"are \(1, 22, 7\), not \(1, 22, 6\); remove the folder, or name another"),
    ],
)
def test_a_spoilt_cache_is_refused_in_one_sentence(spoil, told, tmp_path):
    run(cache=tmp_path / "a", epochs=1)
    spoil(tmp_path / "a")
    with pytest.raises(EffbookError, match=told) as found:
        run(cache=tmp_path / "a")
    assert "\n" not in str(found.value)


def test_two_teachers_cannot_share_a_cache(tmp_path):
    with pytest.raises(EffbookError, match="are of another teacher"):
        run(of=[teacher(), teacher(8)], cache=[tmp_path / "a", tmp_path / "a"])


def test_features_of_another_width_are_not_taken_for_the_teachers():
    data = DistillViews(images(), DistillSettings(distinct_views=1))
    data.use([np.zeros((1, COUNT, D + 1), np.float32)])
    (batch,) = data.batches([torch.tensor([3, 1])], epoch=0)
    with pytest.raises(EffbookError, match="cached features of 7 numbers are not of teachers with 6; compute them"):
        Teachers([teacher()], [D])(batch)


def test_a_cache_appears_whole_or_not_at_all(tmp_path):
    of = teacher()
    data = DistillViews(images(), DistillSettings(distinct_views=2, **QUICK))
    calls = []

    def fail(*_):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt

    of.register_forward_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        cached_features(tmp_path / "a", of, data, dim=D)
    assert not list(tmp_path.iterdir())
    (tmp_path / "b").mkdir()
    with pytest.raises(EffbookError, match="holds no cached features"):
        cached_features(tmp_path / "b", of, data, dim=D)
    with pytest.raises(EffbookError, match="views that never repeat cannot be cached; set `distinct_views`"):
        cached_features(tmp_path / "a", of, DistillViews(images(), DistillSettings()), dim=D)


# ------------------------------------------------------------------------------- refusals


def told_by_timm(mean):
    net = teacher()
    net.pretrained_cfg = {"mean": mean, "std": (0.5, 0.5, 0.5)}
    return net


class Wrapped(nn.Module):
    """A network that gives its features within something else."""

    def __init__(self, kind):
        super().__init__()
        self.network, self.kind = network(M, seed=0), kind

    def forward(self, x):
        return self.kind([("features", self.network(x))])


def flat():
    """A student without batch norm."""
    return nn.Sequential(nn.Flatten(), nn.Linear(192, M))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"of": network(D, seed=0, channels=4)},
            r"the teacher cannot take views of 3 channels and 8 x 8 pixels \(.*\); give images of its channels",
        ),
        (
            {"of": nn.Sequential(nn.Flatten(), nn.Linear(3 * 16, D))},
            "the teacher cannot take views of 3 channels and 8 x 8",
        ),
        (
            {"of": network(D, seed=0, pooled=False)},
            r"the teacher gives \(2, 6, 6, 6\) for 2 images; end it with pooling",
        ),
        ({"student": network(M, seed=0, pooled=False)}, r"the student gives \(2, 4, 6, 6\) for 2 images; end it with"),
        ({"data": 3 * images()}, "that are not normalised: `mean` and `deviation` do it"),
        (
            {"of": told_by_timm((0.1, 0.1, 0.1)), "mean": (0.2,) * 3, "deviation": (0.5,) * 3},
            r"a teacher was made for mean \(0.1, 0.1, 0.1\) and deviation \(0.5, 0.5, 0.5\), not for \(0.2, ",
        ),
        ({"of": [told_by_timm((0.1,) * 3), told_by_timm((0.2,) * 3)]}, "a teacher was made for mean"),
        (
            {"student": nn.Conv2d(3, M, 8)},
            r"the student gives \(2, 4, 1, 1\) for 2 images; end it with pooling",
        ),
        ({"student": Wrapped(tuple)}, "the student gives tuple for 2 images; end it with pooling"),
        ({"of": Wrapped(dict)}, "the teacher gives dict for 2 images; end it with pooling"),
        (
            {"of": nn.Sequential(nn.Conv2d(3, D, 11), nn.AdaptiveAvgPool2d(1), nn.Flatten())},
            r"the teacher cannot take views of 3 channels and 8 x 8 pixels \(.*\); .* set `size_px`",
        ),
        ({"student": network(M, seed=0, channels=1)}, "the student cannot take views of 3 channels"),
        (
            {"data": images(channels=1), "mean": (0.5,), "deviation": (0.2,)},
            "the teacher cannot take views of 1 channels",
        ),
        ({"data": images(channels=1)}, r"the images have 1 channels, and the mean \(.*\) is of 3"),
        ({"data": 2 * images() - 1}, r"holds numbers from -.* to .*; give uint8, or floating numbers from 0 to 1"),
        (
            {"of": told_by_timm((0.5,) * 3), "data": images(channels=1)},
            r"the images have 1 channels, and the mean \(0.5, 0.5, 0.5\) is of 3",
        ),
        ({"batch": 1}, "a batch of one image has no statistics for batch norm; choose a batch of at least 2"),
        ({"batch": 1, "head": "linear"}, "a batch of one image has no statistics for batch norm"),
        ({"batch": 1, "student": flat()}, "a batch of one image has no statistics for batch norm"),
        (
            {"batch": 1, "student": flat(), "head": "linear", "objective": "regress-bn"},
            "a batch of one image has no statistics for batch norm",
        ),
        ({"batch": 64}, "22 images are fewer than a batch of 64"),
        ({"of": []}, "0 caches for 0 teachers"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_sentence(options, told):
    with pytest.raises(EffbookError, match=told) as found:
        run(**options)
    assert "\n" not in str(found.value)


def test_a_network_cannot_be_its_own_teacher():
    net = network(M, seed=0)
    with pytest.raises(EffbookError, match=r"teacher and student are one network; give a copy\.deepcopy"):
        run(of=net, student=net)
    run(of=copy.deepcopy(net), student=net)


def test_a_student_without_batch_norm_may_have_batches_of_one():
    assert len(run(student=flat(), head="linear", batch=1, epochs=1).history) == 1


def test_the_teachers_own_normalisation_is_taken():
    given = {"mean": (0.1,) * 3, "deviation": (0.5,) * 3}
    assert run(of=told_by_timm((0.1,) * 3)).history == run(of=teacher(), **given).history
    assert run(of=teacher()).history != run(of=teacher(), **given).history


def test_labels_have_no_part():
    assert_same(run(data=TensorDataset(images(), torch.arange(COUNT))), run())


def test_settings_need_no_torch_and_distill_is_a_function_after_its_module_is_known():
    code = (
        "import sys; import effbook.simreg; from effbook.simreg import DistillSettings; DistillSettings(); "
        "assert 'torch' not in sys.modules; from effbook.simreg import distill; "
        "import effbook.simreg.distilling; assert callable(effbook.simreg.distill)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
