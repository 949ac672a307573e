"""What holds after each of these tests, whatever it was about: an audit of its database finds nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from tests.support.audited import audited


@pytest.fixture(autouse=True)
def _audited(request: pytest.FixtureRequest) -> Iterator[None]:
    """Audit the database of the test before it is dropped; tests that serve their own use `serve_and_audit`."""
    with audited(request.getfixturevalue("database_url")) if "database_url" in request.fixturenames else nullcontext():
        yield
