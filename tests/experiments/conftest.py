"""Records and work folders of their own for every test that runs recipes through the engine."""

import pytest


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """(records, work), empty."""
    monkeypatch.setenv("EFFBOOK_RECORDS", str(tmp_path / "records"))
    monkeypatch.setenv("EFFBOOK_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "records", tmp_path / "work"
