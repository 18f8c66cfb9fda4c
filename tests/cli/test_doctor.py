"""What a stranger is told about a machine."""

from effbook import exhibits


def test_doctor_tells_the_machine_and_every_profile(door, effbook, monkeypatch):
    monkeypatch.setattr(door, "needs", lambda self: ("package:no_such_package",))
    monkeypatch.setattr(exhibits, "recipes_of", lambda what, profile: [door()])
    status, out, _ = effbook("doctor")
    assert status == 0
    assert all(word in out for word in ("processor", "GPU", "smoke", "mini", "lab", "paper"))
    assert "0 of 1 runs" in out
