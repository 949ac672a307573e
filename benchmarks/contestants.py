"""Who takes part: the extension, and the floors that it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .callbacks import Signing

__all__ = [
    "ACCEPTANCE",
    "BY_HAND",
    "COMPLETED",
    "CONTESTANTS",
    "DUPLICATES",
    "INSERT",
    "SELECT_INSERT",
    "Contestant",
    "Kind",
]

Kind = Literal["completed", "duplicates", "acceptance"]
COMPLETED: Kind = "completed"
DUPLICATES: Kind = "duplicates"
ACCEPTANCE: Kind = "acceptance"
"""Worker mode: the event is written down, and nobody applies it yet."""

_VERDICTS = {COMPLETED: "processed", DUPLICATES: "duplicate", ACCEPTANCE: "queued"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One way to take callbacks.

    Args:
        name: for the table.
        kind: what becomes of the callbacks.
        factory: the application in :mod:`.hosts`, with ``{url}`` for the database's URL.
        path: where the callbacks go, up to the task id.
        signing: how they are signed.
        has_history: whether each callback must leave a delivery.
        aims: the names of the floors that it is compared with, and the ratio of the rates that is wanted, if any.
        is_extra: True where it explains, and is not wanted in every run.
    """

    name: str
    kind: Kind = COMPLETED
    factory: str = "product({url!r})"
    path: str = "/api/v1/content/callback/"
    signing: Signing = "none"
    has_history: bool = True
    aims: Mapping[str, float | None] = field(default_factory=dict)
    is_extra: bool = False

    @property
    def is_extension(self) -> bool:
        """False for a floor."""
        return self.factory.startswith("product")

    @property
    def status_before(self) -> str:
        """The state of the tasks before."""
        return "completed" if self.kind == DUPLICATES else "processing"

    @property
    def status_after(self) -> str:
        """The state of the tasks afterwards."""
        return "processing" if self.kind == ACCEPTANCE else "completed"

    @property
    def has_effects(self) -> bool:
        """Whether each callback must have its effect."""
        return self.kind == COMPLETED

    @property
    def verdict(self) -> str | None:
        """The verdict of the delivery that each must leave; None where there must be none."""
        return _VERDICTS[self.kind] if self.has_history else None

    @property
    def answer(self) -> int:
        """The HTTP status of each answer."""
        return 202 if self.kind == ACCEPTANCE else 200


BARE, BY_HAND, IN_SESSION = "bare floor", "same writes by hand", "the same in db.session"
SELECT_INSERT = "duplicate by hand"
INSERT = "one INSERT by hand"

_FLOORS = {BARE: 0.75, BY_HAND: 0.90}
_SIGNED = "product({url!r}, signed=True)"
_WORKER = "product({url!r}, processing='worker')"
_WORKER_SIGNED = "product({url!r}, signed=True, processing='worker')"

CONTESTANTS = (
    Contestant(name=BARE, factory="floors({url!r})", path="/bare/", has_history=False),
    Contestant(name=BY_HAND, factory="floors({url!r})", path="/by-hand/", aims={BARE: None}),
    Contestant(
        name=IN_SESSION,
        factory="session_floor({url!r})",
        path="/session/",
        aims={BARE: None, BY_HAND: None},
        is_extra=True,
    ),
    Contestant(name="unsigned", aims=_FLOORS),
    Contestant(name="url token", factory=_SIGNED, signing="url", aims=_FLOORS),
    Contestant(name="contenthub header", factory=_SIGNED, signing="contenthub", aims=_FLOORS),
    Contestant(name="ORM handler", factory="product({url!r}, handler='orm')", aims=_FLOORS, is_extra=True),
    Contestant(name=SELECT_INSERT, kind=DUPLICATES, factory="floors({url!r})", path="/duplicate/"),
    Contestant(name="duplicate", kind=DUPLICATES, aims={SELECT_INSERT: 0.85}),
    Contestant(name=INSERT, kind=ACCEPTANCE, factory="floors({url!r})", path="/accept/"),
    Contestant(name="accepted, unsigned", kind=ACCEPTANCE, factory=_WORKER, aims={INSERT: 0.90}),
    Contestant(name="accepted, url token", kind=ACCEPTANCE, factory=_WORKER_SIGNED, signing="url", aims={INSERT: 0.90}),
    Contestant(
        name="accepted, contenthub header",
        kind=ACCEPTANCE,
        factory=_WORKER_SIGNED,
        signing="contenthub",
        aims={INSERT: 0.90},
    ),
)
