from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from effbook.errors import EffbookError
from effbook.evaluate.detection import (
    DetectionSettings,
    average_precision,
    detect,
    faster_rcnn_c4,
    train_detector,
)

TINY = DetectionSettings(
    steps=3,
    batch=2,
    milestones=(2,),
    warmup_steps=1,
    shorter_px=(32,),
    longest_px=32,
    anchors_px=(8, 16),
    region_cells=2,
    regions=8,
    proposals_train=20,
    proposals_test=10,
    seed=3,
)


def _detector(classes=3, settings=TINY):
    """A trunk of stride 4 and a head of one convolution, with weights of their own."""
    g = torch.Generator().manual_seed(5)
    with torch.random.fork_rng(devices=[]):
        trunk = nn.Sequential(nn.Conv2d(3, 6, 4, 4, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        head = nn.Sequential(nn.Conv2d(6, 8, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for each in (*trunk.parameters(), *head.parameters()):
        each.data = torch.rand(each.shape, generator=g) - 0.3
    trunk.out_channels, head.num_features = 6, 8
    return faster_rcnn_c4(trunk, head, classes=classes, settings=settings)


def _pictures(n=4, classes=3):
    g = torch.Generator().manual_seed(1)
    images = torch.randint(256, (n, 3, 32, 32), generator=g).to(torch.uint8)
    targets = []
    for i in range(n):
        corners = torch.randint(0, 12, (1 + i % 2, 2), generator=g).float()
        boxes = torch.cat((corners, corners + 14), dim=1)
        targets.append({"boxes": boxes, "labels": torch.randint(classes, (len(boxes),), generator=g)})
    return images, targets


def _weights(model):
    return torch.cat([each.detach().flatten() for each in model.state_dict().values()])


def _one(*boxes, labels=None, **more):
    labels = [0] * len(boxes) if labels is None else labels
    found = {"boxes": torch.tensor(boxes).float().reshape(-1, 4), "labels": torch.tensor(labels).long()}
    return {**found, **{name: torch.tensor(values) for name, values in more.items()}}


def _overlap(a, b):
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0, wide) * max(0, high)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def _slow(predictions, targets, classes, at, recalls):
    """COCO's average precision at one overlap, from its description: one list of a class's predictions over all
    pictures, best first, each given the object that it covers best among those that are free, easy ones first.
    """
    scores = []
    for label in range(classes):
        found, wanted = [], 0
        for i, (seen, there) in enumerate(zip(predictions, targets, strict=True)):
            hard = there.get("difficult", torch.zeros(len(there["labels"]), dtype=torch.bool)).tolist()
            objects = [
                (box, difficult)
                for box, name, difficult in zip(there["boxes"].tolist(), there["labels"].tolist(), hard, strict=True)
                if name == label
            ]
            wanted += sum(not difficult for _, difficult in objects)
            mine = [
                (score, box)
                for box, name, score in zip(
                    seen["boxes"].tolist(), seen["labels"].tolist(), seen["scores"].tolist(), strict=True
                )
                if name == label
            ]
            taken = set()
            for score, box in sorted(mine, key=lambda one: -one[0])[:100]:
                for difficult in (False, True):
                    free = [k for k, one in enumerate(objects) if k not in taken and one[1] == difficult]
                    hits = [(_overlap(box, objects[k][0]), k) for k in free if _overlap(box, objects[k][0]) >= at]
                    if hits:
                        taken.add(max(hits)[1])
                        if not difficult:
                            found.append((score, i, True))
                        break
                else:
                    found.append((score, i, False))
        if not wanted:
            continue
        found.sort(key=lambda one: (-one[0], one[1]))
        hits, curve = 0, []
        for rank, (_, _, right) in enumerate(found, 1):
            hits += right
            curve.append((hits / wanted, hits / rank))
        levels = np.linspace(0, 1, recalls)  # as COCO rounds them
        best = [max((precise for recall, precise in curve if recall >= level), default=0) for level in levels]
        scores.append(sum(best) / recalls)
    return 100 * sum(scores) / len(scores)


@pytest.mark.parametrize("recalls", [101, 11])
@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_that_of_a_slow_twin(seed, recalls):
    g = torch.Generator().manual_seed(seed)
    targets, predictions = [], []
    for _ in range(12):
        n = int(torch.randint(0, 5, (), generator=g))
        corners = torch.rand(n, 2, generator=g) * 40
        boxes = torch.cat((corners, corners + 8 + torch.rand(n, 2, generator=g) * 20), dim=1)
        hard = torch.rand(n, generator=g) < 0.25
        labels = torch.randint(3, (n,), generator=g)
        targets.append({"boxes": boxes, "labels": labels, "difficult": hard})
        near = boxes.repeat(3, 1) + torch.randn(3 * n, 4, generator=g) * 1.5
        far = torch.rand(2, 2, generator=g) * 40
        near = torch.cat((near, torch.cat((far, far + 12), dim=1)))
        guessed = torch.cat((labels.repeat(3), torch.randint(3, (2,), generator=g)))
        predictions.append({"boxes": near, "labels": guessed, "scores": torch.rand(len(near), generator=g)})
    slow = [_slow(predictions, targets, 4, 0.5 + 0.05 * k, recalls) for k in range(10)]  # class 3 has no object
    found = average_precision(predictions, targets, classes=4, recalls=recalls)
    assert found == pytest.approx({"ap50": slow[0], "ap": sum(slow) / 10, "ap75": slow[5]}, abs=1e-6)
    assert 5 < found["ap"] < found["ap50"] < 95


def test_right_predictions_score_a_hundred_and_none_nothing():
    targets = [_one([2, 2, 12, 14], [20, 5, 30, 15], labels=[0, 2]), _one([1, 1, 9, 9], labels=[2]), _one()]
    right = [{**one, "scores": torch.full((len(one["labels"]),), 0.9)} for one in targets]
    assert average_precision(right, targets, classes=3) == pytest.approx({"ap50": 100, "ap": 100, "ap75": 100})
    none = [{**_one(), "scores": torch.zeros(0)} for _ in targets]
    assert average_precision(none, targets, classes=3) == {"ap50": 0, "ap": 0, "ap75": 0}


def test_a_shifted_box_counts_up_to_its_overlap():
    shifted = _one([2, 0, 12, 10], scores=[0.5])  # 80 of 120 pixels: 0.5, 0.55, 0.6 and 0.65 are reached
    found = average_precision([shifted], [_one([0, 0, 10, 10])], classes=1)
    assert found == pytest.approx({"ap50": 100, "ap": 40, "ap75": 0})


def test_a_missed_object_costs_its_recall_and_a_false_one_before_it_its_precision():
    targets = [_one([0, 0, 10, 10], [20, 20, 30, 30])]
    half = average_precision([_one([0, 0, 10, 10], scores=[0.9])], targets, classes=1)
    assert half["ap50"] == pytest.approx(100 * 51 / 101)  # recalls 0 to 0.5
    late = _one([50, 50, 60, 60], [0, 0, 10, 10], [20, 20, 30, 30], scores=[0.9, 0.8, 0.7])
    assert average_precision([late], targets, classes=1)["ap50"] == pytest.approx(100 * 2 / 3)


def test_difficult_objects_neither_count_nor_harm():
    easy, hard, false = [0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]
    targets = [_one(easy, hard, difficult=[False, True])]
    for found in (_one(easy, scores=[0.5]), _one(easy, hard, scores=[0.5, 0.9])):
        assert average_precision([found], targets, classes=1)["ap"] == pytest.approx(100)
    wrong = _one(easy, false, scores=[0.5, 0.9])
    assert average_precision([wrong], targets, classes=1)["ap"] == pytest.approx(50)
    inside = _one(easy, [22, 22, 26, 26], scores=[0.5, 0.9])  # lies in the difficult one, but is not it
    assert average_precision([inside], targets, classes=1)["ap"] == pytest.approx(50)


def test_the_gradient_reaches_trunk_and_head_and_all_that_is_new():
    images, targets = _pictures()
    detector, before = _detector(), dict(_detector().named_parameters())
    train_detector(detector, images, targets, settings=replace(TINY, weight_decay=0.0))
    assert detector.training
    still = [name for name, value in detector.named_parameters() if torch.equal(value, before[name])]
    assert still == []


def test_weights_are_laid_out_so_that_the_cpus_backward_pass_survives():
    trunk, head = nn.Conv2d(3, 6, 4, 4), nn.Sequential(nn.Conv2d(6, 8, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    trunk.out_channels, head.num_features = 6, 8
    for part in (trunk, head):
        part.to(memory_format=torch.channels_last)
    detector = faster_rcnn_c4(trunk, head, classes=2, settings=TINY)
    assert all(each.is_contiguous() for each in detector.parameters())


def test_one_seed_gives_one_detector_and_leaves_torchs_random_state():
    images, targets = _pictures()
    runs = []
    for before in (1, 2):
        torch.manual_seed(before)
        state = torch.get_rng_state()
        detector = _detector().eval()
        losses = train_detector(detector, images, targets, settings=TINY)
        found = detect(detector, images)
        assert torch.equal(torch.get_rng_state(), state)
        assert not detector.training
        runs.append((losses, _weights(detector), found))
    assert runs[0][0] == runs[1][0]
    assert torch.equal(runs[0][1], runs[1][1])
    assert all(torch.equal(a[k], b[k]) for a, b in zip(runs[0][2], runs[1][2], strict=True) for k in a)
    other = replace(TINY, seed=4)
    train_detector(detector := _detector(settings=other), images, targets, settings=other)
    assert not torch.equal(_weights(detector), runs[0][1])


def test_pictures_may_be_anything_that_gives_one_at_a_time():
    images, targets = _pictures()

    class Lazy:
        def __len__(self):
            return len(images)

        def __getitem__(self, index):
            return images[index]

    one, two = _detector(), _detector()
    assert train_detector(one, images, targets, settings=TINY) == train_detector(two, Lazy(), targets, settings=TINY)
    assert torch.equal(_weights(one), _weights(two))
    assert len(detect(one, Lazy(), batch=3)) == 4


def test_a_mirrored_picture_has_mirrored_boxes():
    """A detector that writes down what it is given, in place of torchvision's."""
    seen = []

    class Notes(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))
            self.roi_heads = nn.Module()
            self.roi_heads.box_predictor = nn.Module()
            self.roi_heads.box_predictor.cls_score = nn.Linear(1, 3)

        def forward(self, pictures, objects):
            seen.extend(zip(pictures, objects, strict=True))
            return {"loss": self.weight.square()}

    images = torch.zeros(1, 3, 20, 30, dtype=torch.uint8)
    images[0, :, 4:9, 2:12] = 255
    targets = [_one([2, 4, 12, 9], labels=[1])]
    train_detector(Notes(), images, targets, settings=DetectionSettings(steps=6, batch=4))
    lefts = set()
    for picture, objects in seen:
        left, top, right, bottom = objects["boxes"][0].int().tolist()
        inside = picture[:, top:bottom, left:right]
        assert inside.sum() == picture.sum() == inside.numel()
        assert objects["labels"].tolist() == [2]  # 0 is the background
        lefts.add(left)
    assert len(seen) == 24
    assert lefts == {2, 18}


def test_the_rate_warms_up_and_drops_and_normalisations_do_not_decay(monkeypatch):
    rates, decays = [], []

    class Watched(torch.optim.SGD):
        def step(self, *arguments):
            rates.append(self.param_groups[0]["lr"])
            decays.append([(len(group["params"]), group["weight_decay"]) for group in self.param_groups])
            return super().step(*arguments)

    monkeypatch.setattr(torch.optim, "SGD", Watched)
    settings = replace(TINY, steps=6, warmup_steps=2, milestones=(3, 5), lr=0.01)
    detector = _detector()
    train_detector(detector, *_pictures(), settings=settings)
    assert rates == pytest.approx([1e-5, 0.5005e-2, 0.01, 1e-3, 1e-3, 1e-4])
    assert decays[0] == [(len(list(detector.parameters())) - 2, 1e-4), (2, 0.0)]


def test_what_cannot_be_trained_on_is_told_in_one_sentence():
    images, targets = _pictures()

    def told(match, objects, pictures=images, settings=TINY):
        detector = _detector()
        before = _weights(detector)
        with pytest.raises(EffbookError, match=match):
            train_detector(detector, pictures, objects, settings=settings)
        assert torch.equal(_weights(detector), before)

    told("Picture 1 has no object; leave it out", [targets[0], _one(), *targets[2:]])
    outside = _one([20, 20, 33, 30])
    told("A box of picture 2 reaches out of its 32 x 32 pixels", [*targets[:2], outside, targets[3]])
    told("A box of picture 2 reaches out", [*targets[:2], outside, targets[3]], list(images), replace(TINY, batch=4))
    told("Picture 0 has labels from 3 to 3, outside 0 to 2", [_one([1, 1, 9, 9], labels=[3]), *targets[1:]])
    told("A box of picture 3 has no area", [*targets[:3], _one([9, 1, 9, 9])])
    told("A box of picture 3 has no area", [*targets[:3], _one([float("nan"), 1, 9, 9])])
    told(r"boxes of shape \(1, 4\) and labels of shape \(2,\)", [_one([1, 1, 9, 9], labels=[0, 1]), *targets[1:]])
    told("3 lists of objects do not go with 4 pictures", targets[:3])


def test_a_loss_that_is_not_finite_is_told():
    detector = _detector()
    with torch.no_grad():
        detector.rpn.head.cls_logits.weight.fill_(1e30)
        detector.backbone[0].weight.mul_(1e30)
        detector.rpn.head.conv[0][0].weight.fill_(1e30)
    with pytest.raises(EffbookError, match=r"The loss is (nan|inf) in step 1; choose a smaller learning rate"):
        train_detector(detector, *_pictures(), settings=TINY)


def test_other_bad_input_is_told_in_one_sentence():
    trunk, head = nn.Sequential(nn.Conv2d(3, 4, 4, 4)), nn.Flatten()
    with pytest.raises(EffbookError, match="The trunk does not say how wide its output is; set its out_channels"):
        faster_rcnn_c4(trunk, head, classes=2, settings=TINY)
    trunk.out_channels = 4
    with pytest.raises(EffbookError, match="The head does not say how wide its output is; set its num_features"):
        faster_rcnn_c4(trunk, head, classes=2, settings=TINY)
    with pytest.raises(EffbookError, match="above zero"):
        DetectionSettings(steps=0)
    with pytest.raises(EffbookError, match="above zero"):
        DetectionSettings(shorter_px=())
    box, scored = _one([0, 0, 9, 9]), _one([0, 0, 9, 9], scores=[0.5])
    with pytest.raises(EffbookError, match="1 lists of objects do not go with 2 pictures"):
        average_precision([scored, scored], [box], classes=1)
    with pytest.raises(EffbookError, match="labels from 0 to 0, outside 0 to -1"):
        average_precision([scored], [box], classes=0)
    with pytest.raises(EffbookError, match="No picture has an object that counts"):
        average_precision([scored], [_one([0, 0, 9, 9], difficult=[True])], classes=1)
    with pytest.raises(EffbookError, match="A score of picture 0 is not finite"):
        average_precision([_one([0, 0, 9, 9], scores=[float("nan")])], [box], classes=1)
