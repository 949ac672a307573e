"""The columns of the lists of deliveries, forwards and tasks."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter

from ..storage.queries import Row
from .tables import Column, Listing
from .terminal import counted, moment, moment_in_brief

__all__ = ["DELIVERIES", "FORWARDS", "task_listing"]


def task_listing(*, has_several: bool) -> Listing:
    """Return the columns of tasks, with the creator where there are several."""
    task = Column("task", itemgetter("task_id"))
    creator = [_plain("creator", "creator_name")] if has_several else []
    state = [_plain("status"), _plain("attempt", right=True)]
    return Listing(
        wide=[
            task,
            *creator,
            *state,
            *(Column(name, _at(f"{name}_at")) for name in ("created", "updated", "deadline")),
            _plain("topic"),
            Column("error", _error),
        ],
        narrow=[Column("updated", _briefly_at("updated_at")), *state, *creator, task],
        note=lambda row: "; ".join(filter(None, (row["topic"], _error(row)))),
    )


def _plain(heading: str, key: str = "", *, right: bool = False) -> Column:
    return Column(heading, itemgetter(key or heading), right)


def _at(key: str) -> Callable[[Row], str]:
    return lambda row: moment(row[key])


def _briefly_at(key: str) -> Callable[[Row], str]:
    return lambda row: moment_in_brief(row[key])


def _error(task: Row) -> str:
    return " ".join(filter(None, (task["error_code"], task["error_message"])))


def _status(delivery: Row) -> str | None:
    before, after = delivery["status_before"], delivery["status_after"]
    return after if before == after else f"{before} > {after}"


def _why(delivery: Row) -> str:
    notes = ["late"] if delivery["late"] else []
    notes += [f"{delivery['occurrences']} times"] if delivery["occurrences"] > 1 else []
    return "; ".join([*notes, *filter(None, (delivery["error"], delivery["reason"]))])


def _tries(forward: Row) -> str:
    following = f", next {moment_in_brief(forward['next_try_at'])}" if forward["next_try_at"] else ""
    return f"{counted(forward['tries'], 'try', 'tries')}{following}; to {forward['url']}"


DELIVERIES = Listing(
    wide=[
        _plain("id", right=True),
        Column("received", _at("received_at")),
        *map(_plain, ("verdict", "event")),
        _plain("task", "task_id"),
        _plain("attempt", right=True),
        *map(_plain, ("source", "scheme")),
        Column("status", _status),
        Column("why", _why),
    ],
    narrow=[
        _plain("id", right=True),
        Column("received", _briefly_at("received_at")),
        *map(_plain, ("verdict", "event")),
        _plain("task", "task_id"),
    ],
    note=_why,
)

FORWARDS = Listing(
    wide=[
        _plain("id", right=True),
        Column("created", _at("created_at")),
        *map(_plain, ("status", "event")),
        _plain("task", "task_id"),
        _plain("tries", right=True),
        Column("next try", _at("next_try_at")),
        _plain("to", "url"),
    ],
    narrow=[
        _plain("id", right=True),
        Column("created", _briefly_at("created_at")),
        *map(_plain, ("status", "event")),
        _plain("task", "task_id"),
    ],
    note=_tries,
)
