"""Send finished forwards again, by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from ..core.redaction import storable
from ..errors import ForwardNotFound, ReplayRefused
from ..storage.database_errors import unavailable
from ..storage.rows import is_row_id
from .send import forward_next

if TYPE_CHECKING:
    from ..runtime.state import WebhookState

__all__ = ["replay_forward"]

_MOST_NAME = 255


def replay_forward(state: WebhookState, forward_id: int, *, by: str | None = None) -> None:
    """Send a delivered or dead forward again, under its old ``webhook-id``; its tries stay on record.

    Args:
        state: the application's state.
        forward_id: the forward.
        by: who asks for it, for the history.

    Raises:
        ForwardNotFound: there is no such row.
        ReplayRefused: it still waits for its next try.
        DatabaseUnavailable: nothing was written.
    """
    if not is_row_id(forward_id):
        raise ForwardNotFound(f"There is no forward {forward_id}.")
    try:
        with state.database.session() as session:
            was_reset = state.outbox.reset(
                session, forward_id, state.store.now(session), by=by and storable(by)[:_MOST_NAME]
            )
            exists = was_reset or state.outbox.read(session, forward_id) is not None
            if not state.settings.submit_threads:
                state.store.inbox.notify(session)  # a scheduler will send it
            session.commit()
    except SQLAlchemyError as error:
        raise unavailable(error) from error
    if not exists:
        raise ForwardNotFound(f"There is no forward {forward_id}.")
    if not was_reset:
        raise ReplayRefused(f"Forward {forward_id} is not finished; it is tried again by itself.")
    state.look_again()
    state.forward_threads.submit(forward_next, state)
