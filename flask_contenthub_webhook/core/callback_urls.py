"""The callback URL of a task: given to the creator, and checked by the ``url`` scheme when it comes back."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from ..errors import ConfigurationError
from .signatures import sign_url

__all__ = ["CallbackURLs"]


@dataclass(frozen=True, slots=True)
class CallbackURLs:
    """Builds callback URLs.

    Args:
        base_url: scheme, host and optional path of the application, or None if none is configured.
        prefix: the path of our routes, such as ``/api/v1/content``.
        secret: signs the token; None makes URLs without one.
    """

    base_url: str | None = field(repr=False)
    prefix: str
    secret: str | None = field(repr=False)

    def build(
        self, task_id: str, attempt: int | None = 1, *, base_url: str | None = None, sender: str | None = None
    ) -> str:
        """Build the URL under which the creator reports on one attempt of a task.

        Args:
            task_id: our id of the task.
            attempt: the attempt, from 1; None makes a URL for whichever attempt is current when the sender uses it.
            base_url: replaces the configured one.
            sender: the name of the creator, if its events have to be told from those of others.

        Raises:
            ConfigurationError: there is no base URL.
        """
        base = base_url if base_url is not None else self.base_url
        if base is None:
            raise ConfigurationError(
                "WEBHOOK_CALLBACK_BASE_URL is not set: the creator must be told where to call back, "
                "for example https://hub.example.com."
            )
        path = f"{self.prefix}/callback/{quote(task_id, safe='')}"
        return self.address(f"{base.rstrip('/')}{path}", task_id, attempt, sender)

    def address(self, url: str, task_id: str, attempt: int | None, sender: str | None = None) -> str:
        """Set ``attempt`` and ``token`` of a URL that leads to this application, and ``sender`` if there is one.

        Args:
            url: an absolute URL, such as one of an earlier attempt; the rest of its query stays.
            task_id: our id of the task.
            attempt: the attempt, from 1; None for the current one.
            sender: as for :meth:`build`; without one, a parameter of that name is the host's own, and stays.
        """
        parts = urlsplit(url)
        ours = {"attempt", "token"} if sender is None else {"sender", "attempt", "token"}
        query = [(name, value) for name, value in parse_qsl(parts.query, True) if name not in ours]
        if sender is not None:
            query.append(("sender", sender))
        if attempt is not None:
            query.append(("attempt", str(attempt)))
        if self.secret is not None:
            query.append(("token", sign_url(self.secret, task_id, attempt, sender)))
        return urlunsplit(parts._replace(query=urlencode(query)))
