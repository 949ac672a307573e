"""The rate limit per client address, on Flask-Limiter's engine."""

from __future__ import annotations

import importlib.util
import logging
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..core.outages import Outage
from ..core.per_process import PerProcess
from ..errors import ConfigurationError, RateLimited
from .clock_watch import ClockWatch

if TYPE_CHECKING:
    from flask import Flask
    from limits.strategies import RateLimiter

__all__ = ["RateLimit"]

logger = logging.getLogger(__name__)


class RateLimit:
    """A rate per client address, such as ``100/minute``, in the storage that the host configured for Flask-Limiter.

    It uses the host's own ``Limiter`` if there is one, but registers none, since that would limit all routes of the
    host; ``RATELIMIT_STORAGE_URI`` and ``RATELIMIT_STRATEGY`` apply either way.

    Raises:
        ConfigurationError: Flask-Limiter is not installed, the notation is wrong, or the storage cannot be used.
    """

    def __init__(self, app: Flask, rate: str, *, watch: ClockWatch | None = None) -> None:
        if importlib.util.find_spec("flask_limiter") is None:
            raise ConfigurationError(
                "WEBHOOK_RATE_LIMIT needs Flask-Limiter: pip install 'flask-contenthub-webhook[ratelimit]'."
            )
        from limits import parse_many

        try:
            self._rates = parse_many(rate)
        except ValueError:
            raise ConfigurationError(
                f"WEBHOOK_RATE_LIMIT is {rate!r}; it must be a rate such as 100/minute or '10 per second'."
            ) from None
        self._app = app
        self._watch = watch or ClockWatch()
        self._outage = Outage("The storage of WEBHOOK_RATE_LIMIT")
        self._own: PerProcess[list[RateLimiter]] = PerProcess(list)
        if not app.extensions.get("limiter"):  # the host's own Limiter has checked its storage itself
            _check_storage(*self._storage_and_strategy())

    def check(self, remote_addr: str | None) -> None:
        """Count a request; let it pass if the storage fails, since a lost callback costs more than a missed count.

        Raises:
            RateLimited: the rate is used up; carries when the window ends.
        """
        key = ("contenthub_webhook", remote_addr or "")
        for rate in self._rates:
            try:
                self._forget_if_clock_was_set()
                if self._strategy.hit(rate, *key):
                    if self._outage.is_on:
                        self._outage.worked(logger)
                    continue
                reset_at = self._strategy.get_window_stats(rate, *key).reset_time
            except Exception as error:  # noqa: BLE001 - whatever the storage's client raises
                self._outage.failed(logger, "The rate could not be counted; the request passes.", error)
                return
            raise RateLimited(retry_after=min(max(1, int(reset_at - time.time()) + 1), rate.get_expiry()))

    def _forget_if_clock_was_set(self) -> None:
        """Begin to count anew in this process's memory: a window that ends at a time would not end for long."""
        from limits.storage import MemoryStorage

        if self._watch.set_by() and isinstance(self._strategy.storage, MemoryStorage):
            self._strategy.storage.reset()

    @property
    def _strategy(self) -> RateLimiter:
        for limiter in self._app.extensions.get("limiter", ()):
            strategy: RateLimiter = limiter.limiter
            return strategy
        own = self._own.value
        if not own:
            own.append(self._make_strategy())
        return own[0]

    def _make_strategy(self) -> RateLimiter:
        from limits.storage import storage_from_string
        from limits.strategies import STRATEGIES

        uri, strategy_name = self._storage_and_strategy()
        storage = storage_from_string(uri, **(self._app.config.get("RATELIMIT_STORAGE_OPTIONS") or {}))
        return STRATEGIES[strategy_name](storage)

    def _storage_and_strategy(self) -> tuple[str, str]:
        config = self._app.config
        return (
            config.get("RATELIMIT_STORAGE_URI") or "memory://",
            config.get("RATELIMIT_STRATEGY") or "fixed-window",
        )


_NEEDED_METHODS = {
    "moving-window": {"acquire_entry", "get_moving_window"},
    "sliding-window-counter": {"acquire_sliding_window_entry", "get_sliding_window"},
}


def _check_storage(uri: str, strategy: str) -> None:
    """Check by the classes alone, since making a storage may connect or start a thread.

    Raises:
        ConfigurationError: every request would pass uncounted; the URI, which may hold a password, is not shown.
    """
    from limits.storage import SCHEMES, Storage  # type: ignore[attr-defined]
    from limits.strategies import STRATEGIES

    if strategy not in STRATEGIES:
        raise ConfigurationError(f"RATELIMIT_STRATEGY is {strategy!r}; it must be one of {', '.join(STRATEGIES)}.")
    scheme = urlsplit(uri).scheme
    kind = SCHEMES.get(scheme)
    if kind is None or not issubclass(kind, Storage):
        raise ConfigurationError(f"RATELIMIT_STORAGE_URI begins with {scheme[:40]!r}, which is not a known storage.")
    if not all(hasattr(kind, method) for method in _NEEDED_METHODS.get(strategy, ())):
        raise ConfigurationError(f"RATELIMIT_STRATEGY is {strategy!r}, which a {scheme}:// storage cannot do.")
    packages = {name.partition(".")[0] for name in kind.DEPENDENCIES}
    for package in [name for name in packages if scheme.startswith(name)] or packages:  # redis and valkey share a class
        if importlib.util.find_spec(package) is None:
            raise ConfigurationError(f"RATELIMIT_STORAGE_URI is {scheme}://, which needs {package}: install it.")
