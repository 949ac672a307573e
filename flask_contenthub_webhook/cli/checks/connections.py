"""The connection pool of each process, against what runs in it at once."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from ...storage.host_session import capacity
from .findings import DoctorContext, Finding, check, ok, warn

__all__ = ["check_connections"]

_REMEDY = "Raise pool_size or max_overflow in SQLALCHEMY_ENGINE_OPTIONS; the deployment guide has the arithmetic."


@check("connections")
def check_connections(context: DoctorContext) -> Iterator[Finding]:
    """Warn about a pool that is too small for the threads of a worker, or for a callback beside the host's session."""
    state = context.state
    with state.database.session() as session:
        bind = state.store.bind_of(session)
    most = capacity(bind.pool) if isinstance(bind, sa.Engine) else None
    needed = state.settings.worker_threads + 1 if state.settings.processing == "worker" else 0
    if most is None:
        yield ok("The pool does not limit the connections of a process.")
    elif most == 1:
        yield warn(
            "The pool gives each process one connection. If a before_request function of yours writes without a "
            "commit, or holds a lock, none is left for the callback, which is answered with 503.",
            _REMEDY,
        )
    elif most < needed:
        yield warn(
            f"The pool gives each process {most} connections, and a worker uses {needed} "
            "(WEBHOOK_WORKER_THREADS, and one to look for work): its threads wait for each other.",
            _REMEDY,
        )
    else:
        yield ok(f"The pool gives each process up to {most} connections.")
