"""The defender's page: its code runs as it stands, on a model that is not in the package, and prints what it says."""

import re

import pytest

from effbook.book.site import repository_root

PAGE = (repository_root() / "book" / "slowformer" / "defender.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def blocks(language):
    """The page's blocks of code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def ran():
    """What the page's code defines, and what it prints; it draws from torch's global state, which is put back."""
    import contextlib
    import io

    import torch

    known, out = {"__name__": "defender"}, io.StringIO()
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(out):
        for code in blocks("python"):
            exec(compile(code, "defender.md", "exec"), known)
    return known, out.getvalue()


def test_the_page_prints_what_it_says_to_within_a_few_points(ran):
    (told,), printed = blocks("text"), ran[1]
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", told)
    pairs = zip(NUMBER.findall(printed), NUMBER.findall(told), strict=True)
    assert all(abs(float(ours) - float(page)) <= (8 if float(page) > 2 else 0.15) for ours, page in pairs), printed


def test_what_the_page_concludes_holds(ran):
    from effbook.slowformer import judge

    known, _ = ran
    begun = known["random_patch"](known["config"], image_px=(16, 16))
    trained, random = (judge(known["model"], known["test"], attack) for attack in (known["patch"], begun))
    assert 5 < random.success_percent < trained.success_percent - 5
    assert trained.attacked_accuracy < trained.clean_accuracy
    assert not type(known["model"]).__module__.startswith("effbook")


def test_the_victims_own_checks_hold(ran):
    import torch

    known, _ = ran
    model, unseen = known["model"], known["unseen"]
    assert known["counted"] == pytest.approx(known["outcome"].macs.sum().item())
    assert float(torch.corrcoef(known["both"])[0, 1]) > 0.6
    bound, macs = model.bound(), model.run(unseen).macs
    assert bound.low_macs <= macs.min() < macs.max() <= bound.high_macs
    assert torch.equal(model.run(unseen, "masked").logits, model.run(unseen, "dropped").logits)


def test_its_victim_has_twenty_lines_beside_the_constructor():
    (victim,) = [code for code in blocks("python") if "class EarlyExit" in code]
    methods = victim.partition("    def run(")[2]
    assert len([line for line in methods.splitlines() if line.strip()]) <= 22
