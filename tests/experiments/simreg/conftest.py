"""Every test here is alone."""

import pytest


@pytest.fixture(autouse=True)
def always(alone):
    """One thread, and a work folder of each test's own."""
