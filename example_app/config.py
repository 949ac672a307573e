"""The configuration, taken from the caller, else from the environment, else from the defaults here."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from flask import Flask

from flask_contenthub_webhook import generate_secret

from .database import database_uri, engine_options

DEFAULTS = {
    "WEBHOOK_ENABLED": True,
    "WEBHOOK_REQUIRE_SIGNATURE": True,
}


def configure(app: Flask, config: Mapping[str, Any]) -> None:
    """Fill `app.config`.

    The extension itself reads WEBHOOK_* variables from the environment, but `app.config` takes precedence; so a
    default may be set there only if the environment has no such variable.
    """
    app.config.from_mapping({key: value for key, value in DEFAULTS.items() if key not in os.environ})
    app.config.from_mapping(config)
    app.config.setdefault("SQLALCHEMY_DATABASE_URI", database_uri(os.environ))
    app.config.setdefault("SQLALCHEMY_ENGINE_OPTIONS", engine_options(app.config["SQLALCHEMY_DATABASE_URI"]))
    if "WEBHOOK_SECRET_KEY" not in app.config and "WEBHOOK_SECRET_KEY" not in os.environ:
        app.config["WEBHOOK_SECRET_KEY"] = own_secret(Path(app.instance_path) / "webhook_secret")
    if app.secret_key is None:  # it protects the forms of the history pages
        app.secret_key = own_secret(Path(app.instance_path) / "secret_key")


def own_secret(path: Path) -> str:
    """Return this machine's secret, generated at the first start and kept in the instance folder.

    In production, set WEBHOOK_SECRET_KEY and SECRET_KEY from your secret store instead.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent) as draft:  # readable by its owner alone
            draft.write(generate_secret())
            draft.flush()
            with suppress(FileExistsError):  # another worker was quicker: use its secret
                os.link(draft.name, path)
    return path.read_text().strip()
