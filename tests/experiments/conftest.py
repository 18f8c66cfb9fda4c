"""Records and work folders of their own for every test that runs recipes through the engine."""

import pytest
import torch


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """(records, work), empty."""
    monkeypatch.setenv("EFFBOOK_RECORDS", str(tmp_path / "records"))
    monkeypatch.setenv("EFFBOOK_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path / "records", tmp_path / "work"


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """One thread, and a work folder of the test's own."""
    monkeypatch.setenv("EFFBOOK_WORK", str(tmp_path / "work"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
