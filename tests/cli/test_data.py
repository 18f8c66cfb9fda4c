"""The commands for data: what failed is told, and the rest is done."""

from effbook import data
from effbook.errors import EffbookError


def test_data_list_and_verify_tell_the_cache(effbook, monkeypatch):
    name = next(iter(data.manifests()))
    monkeypatch.setattr(data, "is_cached", lambda one: one == name)
    monkeypatch.setattr(data, "verify", lambda one: [])
    assert name in effbook("data", "list")[1]
    assert effbook("data", "verify")[:2] == (0, f"{name}: verified\n")
    monkeypatch.setattr(data, "verify", lambda one: ["file x is truncated"])
    status, out, err = effbook("data", "verify")
    assert (status, out) == (1, f"{name}: file x is truncated\n")
    assert f"effbook data fetch {name}" in err


def test_what_has_no_published_checksum_is_told_but_is_no_damage(effbook, monkeypatch):
    monkeypatch.setattr(data, "verify", lambda one: ["unpinned: its home publishes no checksum"])
    status, out, _ = effbook("data", "verify", "alpaca")
    assert status == 0
    assert "unpinned" in out


def test_data_fetch_goes_on_past_one_that_fails_and_exits_with_1(effbook, monkeypatch, tmp_path):
    def fetch(name, *, progress=False, recheck=False):
        assert recheck  # a name given: its files are read again, byte by byte
        if name == "digits":
            raise EffbookError("digits could not be fetched", "try later")
        return tmp_path / name

    monkeypatch.setattr(data, "fetch", fetch)
    status, out, err = effbook("data", "fetch", "digits", "mnist")
    assert status == 1
    assert out == f"mnist: {tmp_path / 'mnist'}\n"
    assert "1 could not be fetched: digits" in err
