"""What the searches go through: services of every kind, and what may go wrong, each together with what it meets."""

from __future__ import annotations

from typing import Any

from .machine import Setting
from .world import Budget, Powers

__all__ = ["SETTINGS", "SLICE", "WHOLE"]

OWN, FOREIGN, FOUND, ONE = Powers(own=True), Powers(), Powers(find=True), Powers(own=True, idempotent=True)
_SERVICES = {"own names": OWN, "foreign names": FOREIGN, "names that are found": FOUND, "one job a name": ONE}


def _each(what: str, budget: Budget, **more: Any) -> list[Setting]:
    return [Setting(f"{what}, {name}", powers, budget, **more) for name, powers in _SERVICES.items()]


def _one(what: str, powers: Powers, budget: Budget, **more: Any) -> Setting:
    return Setting(what, powers, budget, **{"at_once": 1, **more})


SLICE = [
    _one("the hand-over is cut off", FOREIGN, Budget(ticks=2, losses=1, crashes=1)),
    _one("a second attempt", OWN, Budget(ticks=1, failures=1, doubles=1), retries=1),
    _one("a cancellation is cut off", OWN, Budget(ticks=1, cancels=1, losses=1, crashes=1)),
    _one("another attempt of the host's", OWN, Budget(cancels=1, retries=1, crashes=1)),
    _one("the inbox", OWN, Budget(ticks=1, doubles=1), mode="worker"),
    _one("failing handlers", OWN, Budget(ticks=1, broken=1, replays=1)),
    _one("forged, changed, in progress", OWN, Budget(forged=1, other_results=1, progress=1)),
    _one("signed bodies", FOREIGN, Budget(ticks=1, failures=1, doubles=1), retries=1, scheme="contenthub"),
]
"""For the tests: a few seconds each."""

WHOLE = [
    _one("the inbox, a crash", OWN, Budget(ticks=2, doubles=1, crashes=1), mode="worker", at_once=2),
    _one("the inbox, two results", OWN, Budget(ticks=1, doubles=1, other_results=1), mode="worker", at_once=2),
    _one("the inbox, failing handlers", OWN, Budget(ticks=4, broken=2), mode="worker"),
    _one("the inbox, a failing handler and a crash", OWN, Budget(ticks=3, broken=1, crashes=1), mode="worker"),
    _one("the inbox, two attempts", OWN, Budget(ticks=2, failures=1, doubles=1), mode="worker", retries=1),
    *_each("a lost answer and a crash", Budget(ticks=3, losses=1, crashes=1), at_once=1),
    *_each("two lost answers", Budget(ticks=3, losses=2), at_once=1),
    *_each("a lost answer, two attempts", Budget(ticks=3, losses=1, failures=1), retries=1, at_once=1),
    _one("a lost answer beside a poll", FOUND, Budget(ticks=2, losses=1), at_once=2),
    *_each("a second attempt", Budget(ticks=2, failures=2, doubles=1, crashes=1), retries=1, at_once=1),
    *_each("a failure, and no other attempt", Budget(ticks=1, failures=1, doubles=1), at_once=1),
    *_each("a gateway, a service away", Budget(ticks=3, gateway=1, away=1), at_once=1),
    *_each("a cancellation beside a hand-over", Budget(cancels=1, crashes=1)),
    *_each("a cancellation is cut off", Budget(ticks=2, cancels=1, losses=1, crashes=1), at_once=1),
    *_each("another attempt of the host's", Budget(ticks=1, cancels=1, retries=1, crashes=1), at_once=1),
    *_each("two hand-overs", Budget(ticks=2, early=1)),
    *_each("a deadline beside a callback", Budget(ticks=3)),
    _one("no answer, until a second attempt", FOREIGN, Budget(ticks=4, losses=1), retries=1),
    _one("no answer, and the time is not over", FOREIGN, Budget(ticks=2, losses=1), retries=1),
    _one("failing handlers", OWN, Budget(ticks=2, broken=2, replays=1, doubles=1)),
    _one("a purge", OWN, Budget(doubles=1, purges=1, other_results=1)),
    _one("forged, replayed", OWN, Budget(forged=1, replays=1, progress=1)),
    _one("signed bodies", FOREIGN, Budget(ticks=2, failures=2, doubles=2), retries=1, scheme="contenthub"),
    _one("signed bodies, own names", OWN, Budget(ticks=2, failures=1, doubles=1), retries=1, scheme="contenthub"),
    _one(
        "a purge, signed bodies",
        FOREIGN,
        Budget(ticks=1, failures=1, doubles=1, purges=1),
        retries=1,
        scheme="contenthub",
    ),
    _one("deadline, late results", OWN, Budget(ticks=4, losses=1)),
]
"""For ``make proof``; the longest first, so that no processor waits at the end."""

SETTINGS = {setting.name: setting for setting in [*WHOLE, *SLICE]}
"""All, by name; where both have one, that of the slice."""
