"""A slice of each part of the proof; ``make proof`` runs the whole."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator

import pytest

from flask_contenthub_webhook.engine import retry
from flask_contenthub_webhook.tasks import reconcile
from tests.support.mariadb import PROGRAM

from .parts import DATABASES, PARTS, load

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The parts log nothing and write into memory; the tests behind them are to do as before."""
    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)
    monkeypatch.setenv("TMPDIR", tempfile.gettempdir())
    logger = logging.getLogger("flask_contenthub_webhook")
    level = logger.level
    yield
    logger.setLevel(level)
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("part", PARTS)
def test_a_slice_of_the_proof_finds_nothing(part: str):
    databases = [name for name in DATABASES if name != "mariadb" or PROGRAM is not None]

    result = load(part)(whole=False, databases=databases, say=print)

    assert not result.stories, "\n\n".join(result.stories)
    assert result.cases
    assert vars(retry)["time"] is vars(reconcile)["time"] is time  # which the model's hub had exchanged
