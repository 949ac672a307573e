"""A small ContentHub: an ordinary Flask application that shows how to use flask_contenthub_webhook.

Read it in this order: `app.py` (the factory), `models.py`, `handlers.py` (everything that a callback does here),
`review.py`, `tasks.py`, `views.py`. The rest starts it (`serve.py`; `advice.py` prints what to do next) and shows it
off (`demo/`).
"""

from .app import create_app

__all__ = ["create_app"]
