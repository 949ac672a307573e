"""Wrapper of a host's creator that turns unexpected exceptions into CreatorUnclear."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any, TypeVar

from ..errors import CreatorError, CreatorUnclear
from .protocol import Creator, Job, Report

__all__ = ["GuardedCreator"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


class GuardedCreator:
    """Forwards every call; exceptions other than CreatorError are logged and raised as CreatorUnclear.

    Without it, a bug in a creator would end a pass, a sweep or a callback.
    """

    def __init__(self, creator: Creator) -> None:
        self._creator = creator

    def __getattr__(self, name: str) -> Any:
        return getattr(self._creator, name)

    def submit(self, job: Job, *, wait: float) -> Report:
        """See :meth:`.protocol.Creator.submit`."""
        return self._guard(lambda: self._creator.submit(job, wait=wait))

    def status(self, creator_task_id: str) -> Report:
        """See :meth:`.protocol.Creator.status`."""
        return self._guard(lambda: self._creator.status(creator_task_id))

    def statuses(self, creator_task_ids: Collection[str], *, since: datetime | None = None) -> Mapping[str, Report]:
        """See :meth:`.protocol.Creator.statuses`."""
        return self._guard(lambda: self._creator.statuses(creator_task_ids, since=since))

    def result(self, creator_task_id: str) -> Report:
        """See :meth:`.protocol.Creator.result`."""
        return self._guard(lambda: self._creator.result(creator_task_id))

    def cancel(self, creator_task_id: str) -> None:
        """See :meth:`.protocol.Creator.cancel`."""
        self._guard(lambda: self._creator.cancel(creator_task_id))

    def _guard(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except CreatorError:
            raise
        except Exception as error:
            logger.exception("The creator %s raised an unexpected exception.", type(self._creator).__name__)
            raise CreatorUnclear(f"The creator raised an unexpected {type(error).__name__}.") from error
