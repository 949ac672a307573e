"""A process that purges: for each number of seconds on stdin it purges for that long, and prints how many rows went.

DATABASE_URL=... python -m tests.support.purger
"""

from __future__ import annotations

import sys
import threading

from flask_contenthub_webhook.operations.purge import purge_deliveries
from flask_contenthub_webhook.runtime.state import get_state
from tests.support import web_host


def main() -> None:
    """Purge until stdin ends."""
    app = web_host.create_app()
    for line in sys.stdin:
        stop = threading.Event()
        timer = threading.Timer(float(line), stop.set)
        timer.start()
        with app.app_context():
            print(purge_deliveries(get_state(app), stop=stop), flush=True)  # noqa: T201 - for whoever started it
        timer.cancel()


if __name__ == "__main__":
    main()
