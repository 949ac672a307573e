"""Look at an installed flask-contenthub-webhook with nothing else around: no extras, no test tools, no checkout.

Every module can be imported or says which extra it needs, every extra that is missing is named where it is wanted,
what is no Python is there too, and a callback is applied. ``python -I check_install.py``, with that environment's
Python.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, entry_points, metadata, version
from importlib.resources import files
from typing import Any

PACKAGE = "flask_contenthub_webhook"
NAMED = re.compile(r"pip install 'flask-contenthub-webhook\[(\w+)\]'")
FOR_PYTEST = f"{PACKAGE}.testing.plugin"
"""Loaded by pytest alone, so it needs no extra to be there."""
SHOWN = (
    "Flask",
    "SQLAlchemy",
    "Flask-SQLAlchemy",
    "Flask-Migrate",
    "httpx",
    "msgspec",
    "APScheduler",
    "blinker",
)


def main() -> None:
    warnings.simplefilter("error")
    check_modules()
    check_data()
    check_extras()
    check_a_callback()
    print(", ".join(f"{name} {version(name)}" for name in SHOWN))


def check_modules() -> None:
    """Import them all."""
    package = importlib.import_module(PACKAGE)
    assert "site-packages" in str(package.__file__), f"this is not the installed package: {package.__file__}"
    imported = 0
    for module in pkgutil.walk_packages(package.__path__, f"{PACKAGE}.", onerror=lambda _name: None):
        try:
            importlib.import_module(module.name)
        except ImportError as error:
            if module.name != FOR_PYTEST and not NAMED.search(str(error)):
                raise
        else:
            imported += 1
    (command,) = entry_points(group="flask.commands", name="webhook")
    assert command.load().name == "webhook"
    print(f"{imported} modules")


def check_data() -> None:
    """What is no Python module, and easily forgotten in a wheel."""
    package = files(PACKAGE)
    assert package.joinpath("py.typed").is_file()
    revisions = [item.name for item in package.joinpath("migrations", "revisions").iterdir()]
    assert any(name.startswith("contenthub0001") for name in revisions), revisions
    pages = package.joinpath("contrib", "dashboard")
    assert any(item.name.endswith(".html") for item in pages.joinpath("templates").iterdir())
    assert any(item.name.endswith(".css") for item in pages.joinpath("static").iterdir())


def make_app(**config: Any) -> tuple[Any, Any, Any]:
    """A host with the default models, on a database in memory."""
    from flask import Flask
    from flask_sqlalchemy import SQLAlchemy

    from flask_contenthub_webhook import ContentHubWebhook, generate_secret

    app, db = Flask("host"), SQLAlchemy()
    app.config["WEBHOOK_SECRET_KEY"] = generate_secret()
    app.config.update(SQLALCHEMY_DATABASE_URI="sqlite://", WEBHOOK_ENABLED=True, **config)
    db.init_app(app)
    webhook = ContentHubWebhook(app, db)
    with app.app_context():
        db.create_all()
    return app, db, webhook


WANTED: dict[str, Callable[[], object]] = {
    "celery": lambda: importlib.import_module(f"{PACKAGE}.contrib.celery"),
    "mtls": lambda: make_app(WEBHOOK_CLIENT_CERTS="cn:creator", WEBHOOK_TRUSTED_PROXIES="10.0.0.1"),
    "opentelemetry": lambda: importlib.import_module(f"{PACKAGE}.contrib.opentelemetry"),
    "prometheus": lambda: importlib.import_module(f"{PACKAGE}.contrib.prometheus"),
    "ratelimit": lambda: make_app(WEBHOOK_RATE_LIMIT="100/minute"),
}
"""What a host does that wants an extra."""
NOTHING_WANTS = {"cli", "postgresql", "mysql", "mysqlclient", "mysqlconnector", "openai", "replicate", "fal"}
"""Progress bars, which are left out without rich, drivers, which SQLAlchemy asks for by itself, and SDKs, whose clients
the host makes before ours sees them."""
OF_THE_CHECKOUT = {"demo", "test", "bench", "docs", "release", "dev"}


def check_extras() -> None:
    """Ask for each extra, and read its name in the error."""
    offered = set(metadata("flask-contenthub-webhook").get_all("Provides-Extra") or ()) - OF_THE_CHECKOUT
    assert offered - NOTHING_WANTS <= set(WANTED), f"Say in WANTED what wants {offered - NOTHING_WANTS - set(WANTED)}."
    for extra in sorted(offered - NOTHING_WANTS):
        assert extra in NAMED.findall(words_of(WANTED[extra])), f"Nothing said that the extra {extra} is missing."
    print("missing and named:", *sorted(offered - NOTHING_WANTS))


def words_of(attempt: Callable[[], object]) -> str:
    """What a person reads."""
    from flask_contenthub_webhook.errors import ConfigurationError

    try:
        return str(attempt())
    except (ImportError, ConfigurationError) as error:
        return str(error)


def check_a_callback() -> None:
    """One task, one callback twice."""
    from flask_contenthub_webhook import task_completed

    app, db, webhook = make_app()
    published: list[str] = []

    def publish(_app: Any, *, result: dict[str, Any], **_extra: Any) -> None:
        published.append(result["content"])

    task_completed.connect(publish, sender=app)
    with app.app_context():
        db.session.add(webhook.task_model(task_id="1", status="submitted"))
        db.session.commit()
        url = webhook.callback_url("1", base_url="http://localhost")
    event = {"event": "completed", "taskId": "1", "status": "completed", "result": {"content": "# Hello"}}
    outcomes = [app.test_client().post(url, json=event).get_json()["outcome"] for _ in range(2)]
    assert (outcomes, published) == (["processed", "duplicate"], ["# Hello"]), (outcomes, published)
    print("a callback was applied once")


if __name__ == "__main__":
    try:
        main()
    except PackageNotFoundError as missing:
        raise SystemExit(f"{missing} is not installed") from None
