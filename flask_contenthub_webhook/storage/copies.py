"""The copies of a message that failed or were parked: settled together with the one that is applied.

A sender repeats an event that was answered with an error, so one event may have several rows.
"""

from __future__ import annotations

import sqlalchemy as sa

from ..core.state_machine import Verdict
from .completion import literal
from .rows import ModelTable, Row

__all__ = ["Copies"]


class Copies:
    """The statement over the copies of a message.

    Args:
        deliveries: the host's delivery model.
    """

    def __init__(self, deliveries: ModelTable) -> None:
        d = deliveries.columns
        at_id, replayed = sa.bindparam("at_id", type_=d["id"].type), sa.bindparam("at_replay_of", type_=d["id"].type)
        at_attempt = sa.bindparam("at_attempt", type_=d["attempt"].type)
        is_replayed = d["id"] == replayed
        same_message = sa.or_(
            d["message_id"] == sa.bindparam("at_message_id", type_=d["message_id"].type),
            sa.and_(
                d["body_digest"] == sa.bindparam("at_digest", type_=d["body_digest"].type),
                sa.or_(d["message_id"].is_(None), sa.bindparam("at_message_id", type_=d["message_id"].type).is_(None)),
            ),
        )
        same_attempt = sa.or_(d["attempt"].is_(None), d["attempt"] == sa.func.coalesce(at_attempt, d["attempt"]))
        self._settle = (
            sa.update(deliveries.table)
            .where(d["task_id"] == sa.bindparam("at_task_id", type_=d["task_id"].type), d["id"] != at_id)
            .where(sa.or_(*(d["verdict"] == literal(verdict.value) for verdict in (Verdict.FAILED, Verdict.DEAD))))
            .where(sa.or_(is_replayed, sa.and_(d["claimed_until"].is_(None), same_message, same_attempt)))
            .values(
                {
                    d["reason"]: sa.case(
                        (is_replayed, sa.bindparam("at_replayed_as", type_=d["reason"].type)),
                        else_=sa.bindparam("at_applied_as", type_=d["reason"].type),
                    ),
                    d["verdict"]: sa.case(
                        (is_replayed, literal(Verdict.REPLAYED.value)), else_=literal(Verdict.DUPLICATE.value)
                    ),
                    d["next_retry_at"]: sa.null(),
                    d["claimed_until"]: sa.null(),
                }
            )
        )

    def settle(
        self,
        connection: sa.Connection,
        delivery: Row,
        *,
        message: tuple[str | None, str | None],
        attempt: int | None,
        replay_of: int | None,
    ) -> None:
        """Settle what failed or was parked, and is the same message or the original of a replay.

        Args:
            connection: in the transaction that settles the delivery.
            delivery: the row that is settled, with at least its id and its task.
            message: digest and id of the message; None twice settles only the original of the replay.
            attempt: the attempt that copies must belong to; None matches any.
            replay_of: the delivery that was replayed.
        """
        digest, message_id = message
        parameters = {
            "at_id": delivery["id"],
            "at_task_id": delivery["task_id"],
            "at_digest": digest,
            "at_message_id": message_id,
            "at_attempt": attempt,
            "at_replay_of": replay_of,
            "at_replayed_as": f"Replayed as delivery {delivery['id']}.",
            "at_applied_as": f"Applied as delivery {delivery['id']}.",
        }
        connection.execute(self._settle, parameters)
