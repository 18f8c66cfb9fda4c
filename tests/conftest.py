"""What the tests of several rooms use lies beside this file."""

import sys
from pathlib import Path

if (here := str(Path(__file__).parent)) not in sys.path:
    sys.path.insert(0, here)


def pytest_collection_modifyitems(items):
    """Begin with what takes long, so that no worker is left with it at the end while the others have nothing to do."""
    items.sort(key=lambda item: ("smoke_book" not in item.fixturenames, item.get_closest_marker("slow") is None))
