"""Checkpoints, progress and the check for a finite loss."""

import io

import numpy as np
import pytest
import torch

from effbook.errors import EffbookError
from effbook.runs import progress
from effbook.runs.context import Context
from effbook.runs.progress import Display, duration


def test_a_checkpoint_gives_back_nested_states_bit_for_bit(tmp_path):
    generator = torch.Generator().manual_seed(1)
    model = torch.nn.Linear(3, 2)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.randn(4, 3, generator=generator)).sum().backward()
    optimiser.step()
    tied = {"a": model.weight, "b": model.weight, "t": torch.ones(2, 3).T}
    state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "g": generator.get_state(), "tied": tied}
    plain = {"a": (1, [2.5, None], "x", True), 3: {}, "n": np.float64(0.5)}
    Context("smoke", tmp_path).checkpoint({"state": state, "plain": plain}, 7, {"losses": [1.0, 0.5]})

    found, step, extra = Context("smoke", tmp_path).resume()
    assert (step, extra) == (7, {"losses": [1.0, 0.5]})
    assert found["plain"] == plain
    torch.testing.assert_close(found["state"], state, rtol=0, atol=0)
    other = torch.optim.Adam(torch.nn.Linear(3, 2).parameters(), lr=0.3)
    other.load_state_dict(found["state"]["optimiser"])
    assert other.state_dict()["param_groups"] == optimiser.state_dict()["param_groups"]


def test_only_the_last_checkpoint_is_kept(tmp_path):
    context = Context("smoke", tmp_path)
    for step in (1, 2, 3):
        context.checkpoint({"x": torch.tensor(step)}, step)
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert Context("smoke", tmp_path).resume()[1] == 3


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path, monkeypatch):
    context = Context("smoke", tmp_path)
    context.checkpoint({"x": torch.tensor(1)}, 1)

    def cut(content, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", cut)
        with pytest.raises(KeyboardInterrupt):
            context.checkpoint({"x": torch.tensor(2)}, 2)
    (tmp_path / ".checkpoint.pt.0123456789abcdef.tmp").write_bytes(b"half")  # as a killed process leaves it
    state, step, _ = Context("smoke", tmp_path).resume()
    assert (int(state["x"]), step) == (1, 1)
    context.checkpoint({}, 3)
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_names_that_look_like_paths_stay_apart(tmp_path):
    Context("smoke", tmp_path).checkpoint({"a/b": torch.tensor(1), "a": {"b": torch.tensor(2)}}, 1)
    state, _, _ = Context("smoke", tmp_path).resume()
    assert (int(state["a/b"]), int(state["a"]["b"])) == (1, 2)


@pytest.mark.parametrize("damage", [lambda old: b"broken", lambda old: b"", lambda old: old[:-200]])
def test_a_damaged_checkpoint_starts_the_run_anew(tmp_path, capsys, damage):
    Context("smoke", tmp_path).checkpoint({"x": torch.ones(100)}, 1)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(damage(path.read_bytes()))
    assert Context("smoke", tmp_path, Display()).resume() is None
    assert "starts anew" in capsys.readouterr().err


def test_what_a_checkpoint_cannot_hold_is_refused(tmp_path):
    with pytest.raises(EffbookError, match="cannot hold /x of type set"):
        Context("smoke", tmp_path).checkpoint({"x": {1}}, 1)
    assert Context("smoke", tmp_path).resume() is None


def test_wall_seconds_add_up_over_the_parts(tmp_path):
    first = Context("smoke", tmp_path)
    first.seconds_before = 100.0
    first.checkpoint({}, 1)
    second = Context("smoke", tmp_path)
    second.resume()
    assert 100.0 <= second.seconds < 110.0


@pytest.mark.parametrize("loss", [float("nan"), torch.tensor(float("inf"))])
def test_a_loss_that_is_not_finite_names_the_step_and_what_is_kept(tmp_path, loss):
    context = Context("smoke", tmp_path)
    assert context.check_finite(torch.tensor(0.5), 1) == 0.5
    with pytest.raises(EffbookError, match=r"at step 3; lower the learning rate.*all records are kept"):
        context.check_finite(loss, 3)
    context.checkpoint({}, 2)
    with pytest.raises(EffbookError, match="the checkpoint of step 2 and all records are kept"):
        context.check_finite(loss, 3)


def test_what_a_checkpoint_holds_besides_is_strict_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        Context("smoke", tmp_path).checkpoint({}, 1, {"loss": float("nan")})
    assert Context("smoke", tmp_path).resume() is None


def test_plain_lines_tell_progress_and_time_left_where_there_is_no_terminal(monkeypatch, capsys):
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    bar = Display().track(10, "training", done=4)
    bar.advance(2, loss=0.25)
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.startswith("training: 6/10, ")
    assert out.err.endswith("left, loss 0.25\n")


def test_quiet_prints_nothing(capsys):
    bar = Display(quiet=True).track(2, "training")
    bar.advance(2)
    Display(quiet=True).say("hello")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", stream)
    display = Display()
    with display.live():
        bar = display.track(2, "training")
        bar.advance(1, loss=0.5)
        display.say("[a] line")
        bar.advance(1)
    assert display.bars is None
    assert "[a] line" in stream.getvalue()


def test_times_are_told_for_people():
    assert [duration(s) for s in (5, 99, 600, 7200)] == ["5 s", "99 s", "10 min", "2.0 h"]


def test_reading_its_own_checkpoint_counts_no_time_twice(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("effbook.runs.context.time.perf_counter", lambda: now[0])
    context = Context(profile="smoke", folder=tmp_path)
    now[0] = 110.0
    context.checkpoint({"x": torch.ones(1)}, 1, {})
    context.resume()
    assert context.seconds == 10
    later = Context(profile="smoke", folder=tmp_path)
    later.resume()
    now[0] = 115.0
    assert later.seconds == 15
