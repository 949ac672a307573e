"""Faults of tasks: drawn from the seed and the task's id alone, independent of the order of calls."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import TypeVar

__all__ = ["FAILURES", "Contradiction", "Faults", "Forgery", "TaskFaults", "draw"]

FAILURES = (
    "Request failed with status code 400",
    "connect ECONNREFUSED 127.0.0.1:9",
    "Text quality check failed after 3 attempts",
)
"""Error messages that the real service has sent."""

_T = TypeVar("_T")


class Contradiction(StrEnum):
    """Contradictory callbacks of one task. The API always tells the truth: ``completed``."""

    FAILED_THEN_COMPLETED = "failed_then_completed"
    """``failed``, and a moment later ``completed``."""
    TWO_COMPLETED = "two_completed"
    """``completed`` twice, with different content; the API serves the later one."""
    FAILED_AFTER_COMPLETED = "failed_after_completed"
    """``completed``, and a moment later ``failed``."""


class Forgery(StrEnum):
    """Forged callbacks that arrive while the task is being worked on."""

    NO_TOKEN = "no_token"  # noqa: S105 - a name, not a secret
    """The task's callback URL without its ``token`` and without its ``user:pass@``."""
    WRONG_TOKEN = "wrong_token"  # noqa: S105 - a name, not a secret
    """The task's callback URL with a made-up ``token``."""
    OTHER_TASK = "other_task"
    """The path of another task's callback URL, with the query (attempt and token) of this task's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFaults:
    """The faults of one task.

    Args:
        lose: its callbacks are never sent.
        delay: its callbacks are sent late.
        duplicate: its callback is sent twice, byte-identical.
        reorder: its callbacks go out in reverse order and after the next one of another task.
        contradict: its callbacks contradict each other, in this way.
        forge: a forged callback is sent as well, of this kind.
        hang: API calls about this task alone are never answered.
        fail: it fails, with this message.
        refuse: its submission is refused with 400.
    """

    lose: bool = False
    delay: bool = False
    duplicate: bool = False
    reorder: bool = False
    contradict: Contradiction | None = None
    forge: Forgery | None = None
    hang: bool = False
    fail: str | None = None
    refuse: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the faults, such as ``("lose", "forge:no_token")``."""
        drawn = {name: value for name, value in asdict(self).items() if value}
        return tuple(f"{name}:{value}" if isinstance(value, StrEnum) else name for name, value in drawn.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Rates of faults, from 0 (never) to 1 (every task), drawn separately for each task and fault.

    Args:
        lose: no callback is ever sent for the task.
        delay: the task's callbacks are sent ``delay_by`` seconds late.
        duplicate: the task's callback is sent once more, byte-identical, after ``duplicate_after`` seconds.
        reorder: the task's callbacks go out in reverse order, and after the next callback of another task if there is
            one within ``reorder_hold`` seconds.
        contradict: the task's callbacks contradict each other, ``contradict_after`` seconds apart, in one of the ways
            of ``contradictions``. Such a task is always completed, even if ``fail`` is drawn.
        forge: a forged callback arrives while the task is being worked on, of one of the kinds of ``forgeries``.
        hang: ``GET /api/tasks/:id`` and ``/status`` of the task are never answered.
        fail: the task fails, with a message of the real service.
        refuse: the submission is refused with 400, and there is no task.
        delay_by: seconds.
        duplicate_after: seconds; 0 queues the copy right after the original.
        contradict_after: seconds; the real service took four.
        reorder_hold: seconds.
        contradictions: the kinds to draw from.
        forgeries: the kinds to draw from.
        crash_at: the numbers of valid submissions, from 1, of which the server dies once it has stored them and before
            it answers.

    Raises:
        ValueError: a rate is not between 0 and 1, or a time is negative.
    """

    lose: float = 0.0
    delay: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    contradict: float = 0.0
    forge: float = 0.0
    hang: float = 0.0
    fail: float = 0.0
    refuse: float = 0.0
    delay_by: float = 5.0
    duplicate_after: float = 0.0
    contradict_after: float = 4.0
    reorder_hold: float = 1.0
    contradictions: tuple[Contradiction, ...] = tuple(Contradiction)
    forgeries: tuple[Forgery, ...] = tuple(Forgery)
    crash_at: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in (fault.name for fault in fields(TaskFaults)):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; a rate must be between 0 and 1.")
        for name in ("delay_by", "duplicate_after", "contradict_after", "reorder_hold"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; seconds must not be negative.")

    def of(self, seed: int, task_id: str) -> TaskFaults:
        """Return the faults of a task: always the same for the same seed, id and rates."""

        def hit(name: str) -> bool:
            rate: float = getattr(self, name)
            return draw(seed, task_id, name) < rate

        def pick(name: str, choices: Sequence[_T]) -> _T:
            return choices[int(draw(seed, task_id, f"{name} which") * len(choices))]

        contradict = pick("contradict", self.contradictions) if hit("contradict") else None
        return TaskFaults(
            lose=hit("lose"),
            delay=hit("delay"),
            duplicate=hit("duplicate"),
            reorder=hit("reorder"),
            contradict=contradict,
            forge=pick("forge", self.forgeries) if hit("forge") else None,
            hang=hit("hang"),
            fail=pick("fail", FAILURES) if hit("fail") and contradict is None else None,
            refuse=hit("refuse"),
        )


def draw(seed: int, task_id: str, what: str) -> float:
    """Return a number in [0, 1) that looks random and depends on the arguments alone."""
    text = f"{seed}\0{task_id}\0{what}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=6).digest()) / 2**48
