"""One thread, and a work folder of each test's own."""

import pytest
import torch


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFBOOK_WORK", str(tmp_path / "work"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
