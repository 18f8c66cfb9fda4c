"""One context at smoke size for all tests of the chapter's recipes: victims and patches are kept in its cache."""

import pytest

from effbook.runs.recipe import Context


@pytest.fixture(scope="session")
def context(tmp_path_factory):
    return Context(profile="smoke", folder=tmp_path_factory.mktemp("context"))


@pytest.fixture
def kept(monkeypatch, context):
    """The session's context, whose cache the test reads and fills."""
    monkeypatch.setenv("EFFBOOK_WORK", str(context.folder / "work"))
    return context
