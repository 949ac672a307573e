"""Spare the jobs their passes while nothing is due: one statement looks at the work of all of them.

What a look finds holds until the earliest time that it saw, and for some seconds at most, since other processes write
new work meanwhile. Where new work is not done by the process that wrote it, PostgreSQL announces it.
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from ..core.logs import get_logger
from ..engine.listen import NotifyListener
from ..runtime.refusals import WINDOW
from ..storage.due_work import DueWork, read_due_work
from ..storage.failure_log import log_unexpected

if TYPE_CHECKING:
    from ..runtime.state import WebhookState

__all__ = ["Lookout"]

logger = get_logger(__name__)

_ALERTS = "alerts"
_KIND_OF = {"reconcile": "poll", "submit": "submit", "retry-deliveries": "delivery", "forward": "forward"}
"""The work of the jobs, as the look names it."""
_LONGEST_TRUST = timedelta(seconds=10)
"""The longest time between two looks; nothing that is due within it by time alone is unknown, see :func:`_trust`."""
_TRUST_OF_SWEEPS = timedelta(seconds=5)
_TRUST_OF_APPLIERS = timedelta(seconds=1)
"""The same where this process may be the only one that does new work, and the database does not announce it."""
_QUIET = timedelta(minutes=5)
"""Time after which alerts are checked again although nothing happened."""
_GROWS = WINDOW + timedelta(minutes=1)
"""Time after which no refusal is counted in a row of the history any more."""
_LISTEN = 5.0
"""Seconds between two looks at whether the connection that listens was lost."""


class Lookout:
    """Tells the jobs of one process whether a pass is worth its statements; safe for threads.

    Args:
        state: the application's state.
    """

    def __init__(self, state: WebhookState) -> None:
        self._state = state
        self._lock = threading.Lock()
        self._found: DueWork | None = None
        self._looked_at = timedelta()
        self._is_stale = threading.Event()
        self.is_woken = False
        """True while the database announces what others leave to this process."""
        self._quiet_since: tuple[int | None, timedelta] | None = None
        self._newest: int | None = None
        self._newest_since = timedelta()
        self._listening: threading.Thread | None = None

    def is_due(self, job: str) -> bool:
        """Return True if a pass of the job may find something to do, or that cannot be seen now."""
        if job not in _KIND_OF and job != _ALERTS:
            return True
        with self._lock:
            try:
                found, now = self._look()
            except SQLAlchemyError:
                return True  # the job meets the same trouble, and logs it
        if job == _ALERTS:
            self._newest = found.last_delivery
            return not self._is_quiet(found, now)
        if job == "forward" and self._has_failing_urls():
            return True
        at: datetime | None = getattr(found, _KIND_OF[job])
        if at is None or at > now:
            return False
        self.forget()
        return True

    def forget(self) -> None:
        """Look anew before the next pass: new work was announced, or a pass has changed what waits."""
        self._is_stale.set()

    def note(self, job: str, done: Any) -> None:
        """Note what a pass has returned: it may have changed what waits, or measured that nothing happens at all."""
        if job == _ALERTS:
            is_quiet = not any(alert.raised or alert.sample for alert in done)
            self._quiet_since = (self._newest, self._state.waited()) if is_quiet else None
        elif job in _KIND_OF or (job == "clock" and done):
            self.forget()

    # --- looking ---------------------------------------------------------------------------------------------

    def _look(self) -> tuple[DueWork, datetime]:
        state, waited = self._state, self._state.waited()
        found, now = self._found, state.store.clock.recent_now()
        is_stale = self._is_stale.is_set() or found is None or now is None
        if is_stale or found is None or not timedelta() <= waited - self._looked_at < self._trust():
            self._is_stale.clear()  # before asking: what is announced meanwhile may not be seen
            before = found
            try:
                found = state.database.ask(lambda tx: read_due_work(tx, state.store, state.outbox))
            except BaseException:
                self._is_stale.set()  # what was announced is still to be seen
                raise
            if before is None or before.last_delivery != found.last_delivery:
                self._newest_since = waited
            self._found, self._looked_at, now = found, waited, None
        return found, now or state.now()

    def _trust(self) -> timedelta:
        """Return for how long a look holds: less than the time after which something new may come due."""
        state, settings = self._state, self._state.settings
        intervals = (state.registry.pacing.poll_interval, settings.celery_grace, settings.alert_window / 10)
        longest = min(_LONGEST_TRUST, *intervals, *settings.retry_backoff)
        if self.is_woken:
            return longest
        if settings.processing != "inline":
            return min(longest, _TRUST_OF_APPLIERS)
        return longest if settings.submit_threads else min(longest, _TRUST_OF_SWEEPS)

    def _has_failing_urls(self) -> bool:
        lanes = self._state.forward_lanes
        return bool(lanes.postponed() or lanes.paused(self._state.waited()))

    def _is_quiet(self, found: DueWork, now: datetime) -> bool:
        """Tell whether no alert can have changed, but by time alone, since a check that measured nothing."""
        if self._quiet_since is None or any(at is not None and at <= now for at in (found.poll, found.delivery)):
            return False
        settings, (newest, since) = self._state.settings, self._quiet_since
        silence = timedelta(minutes=settings.silence_alert_minutes) or _QUIET
        longest = min(_QUIET, settings.alert_window, silence / 6)
        waited = self._state.waited()
        may_grow = newest is not None and waited - self._newest_since < _GROWS  # by refusals that are counted in it
        return found.last_delivery == newest and not may_grow and timedelta() <= waited - since < longest

    # --- listening -------------------------------------------------------------------------------------------

    def listen(self, stopping: threading.Event) -> None:
        """Let the database announce what other processes leave to this one, in a thread, until it stops."""
        settings = self._state.settings
        if settings.processing == "inline" and settings.submit_threads:
            return  # whoever writes new work does it
        name = "contenthub-scheduler-listen"
        thread = threading.Thread(target=self._listen, args=(stopping,), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            logger.warning("The scheduler does not listen, but looks instead: %s", error)
        else:
            self._listening = thread

    def join(self, seconds: float) -> None:
        """Wait for the end of the thread that listens."""
        if self._listening is not None:
            self._listening.join(seconds)

    def _listen(self, stopping: threading.Event) -> None:
        try:
            with self._state.app.app_context(), NotifyListener(self._state) as listener:
                while listener.is_possible and not stopping.is_set():
                    self.is_woken = listener.is_listening
                    if listener.wait(_LISTEN, stopping):
                        self.forget()
        except Exception as error:  # noqa: BLE001 - the looks go on
            log_unexpected(self._state.database, logger, "The scheduler listens no more; it looks instead.", error)
        finally:
            self.is_woken = False
