"""The history pages as a test sees them: asked for, taken apart, and posted to."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import sqlalchemy as sa

from flask_contenthub_webhook.contrib.dashboard import create_dashboard
from flask_contenthub_webhook.runtime.refusals import RefusalLog
from tests.support.plans import plan_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flask import Flask
    from flask.testing import FlaskClient
    from werkzeug.test import TestResponse

    from tests.support.host import Host

__all__ = ["AT", "Parsed", "Visitor", "mount", "open_to_all", "parsed", "plans", "start_anew"]

AT = "/webhooks"


def start_anew(host: Host) -> None:
    """Empty the tables of an application that several tests use one after the other, and forget what it remembers."""
    tables = host.db.metadata.sorted_tables
    with host.engine.begin() as connection:
        kind = connection.dialect.name
        if kind == "postgresql":
            connection.execute(sa.text(f"TRUNCATE {', '.join(table.name for table in tables)} RESTART IDENTITY"))
        else:
            for table in reversed(tables):
                connection.execute(sa.delete(table))
        for table in tables if kind == "mysql" else ():
            connection.execute(sa.text(f"ALTER TABLE {table.name} AUTO_INCREMENT = 1"))
        if kind == "sqlite":
            connection.execute(sa.text("DELETE FROM sqlite_sequence"))
    host.clock.now = datetime.now(UTC)
    host.publisher.broken = False
    host.state.refusals = RefusalLog(host.state.database)


def mount(
    permission: Callable[[], Any] | None = lambda: True, who: Callable[[], str | None] | None = None
) -> Callable[[Flask], None]:
    """What mounts the pages on an application."""
    return lambda app: app.register_blueprint(create_dashboard(permission=permission, who=who), url_prefix=AT)


open_to_all = mount()


class Visitor:
    """A browser without a screen: it keeps cookies, follows links, and fills in forms.

    Args:
        host: the application, with the pages mounted.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.client: FlaskClient = host.app.test_client()

    def get(self, path: str, **options: Any) -> TestResponse:
        """Ask for a page; `path` as in a link, or behind the mount point."""
        return self.client.get(path if path.startswith(AT) else AT + path, buffered=True, **options)

    def see(self, path: str, *, status: int = 200) -> Parsed:
        """A page that must answer so, taken apart."""
        answer = self.get(path)
        assert answer.status_code == status, answer.text
        return parsed(answer.text)

    def walk(self, path: str, words: str) -> Iterator[Parsed]:
        """A page, and all that a link with these words leads to."""
        while True:
            page = self.see(path)
            yield page
            further = page.link(words)
            if further is None:
                return
            path = further

    def submit(self, page: Parsed, action: str, **options: Any) -> TestResponse:
        """Send the form of a page that posts to an address with these letters in it."""
        form = next(form for form in page.forms if form.method == "post" and action in form.action)
        fields = {**form.fields, **options.pop("fields", {})}
        return self.client.post(form.action, data=fields, **options)


@dataclass
class Form:
    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)


@dataclass
class Parsed:
    """What a page consists of."""

    html: str
    text: str = ""
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)
    forms: list[Form] = field(default_factory=list)

    @property
    def ids(self) -> list[int]:
        """The deliveries of its list, from top to bottom."""
        return [int(attributes["data-id"] or 0) for name, attributes in self.elements if "data-id" in attributes]

    def link(self, words: str) -> str | None:
        """Where the link with these words leads."""
        return next((target for target, text in self.links if words in text), None)

    def found(self, pattern: str) -> str:
        """What the group of a pattern, or all of it, matches in the words of the page; it must be there."""
        match = re.search(pattern, self.text)
        assert match, (pattern, self.text)
        return match[match.re.groups and 1]

    def names(self) -> set[str]:
        """The names of its elements."""
        return {name for name, _ in self.elements}


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Parsed("")
        self._words: list[str] = []
        self._open: list[tuple[str, int]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.page.elements.append((tag, attributes))
        match tag:
            case "a":
                self._open.append((attributes.get("href") or "", len(self._words)))
            case "form":
                self.page.forms.append(Form(attributes.get("action") or "", attributes.get("method") or "get"))
            case "input" if self.page.forms and attributes.get("name"):
                self.page.forms[-1].fields[attributes["name"] or ""] = attributes.get("value") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._open:
            target, start = self._open.pop()
            self.page.links.append((target, "".join(self._words[start:])))

    def handle_data(self, data: str) -> None:
        self._words.append(data)

    def finish(self, html: str) -> Parsed:
        self.page.html = html
        self.page.text = re.sub(r"\s+", " ", "".join(self._words))
        return self.page


def parsed(html: str) -> Parsed:
    """A page, taken apart; in it nothing may run, and nothing may lead elsewhere."""
    parser = _Parser()
    parser.feed(html)
    parser.close()
    page = parser.finish(html)
    for name, attributes in page.elements:
        assert name not in {"img", "iframe", "object", "embed", "style", "base"}, name
        assert not [attribute for attribute in attributes if attribute.startswith("on") or attribute == "style"]
        for address in (attributes.get(key) for key in ("src", "href", "action")):
            assert address is None or not urlsplit(address).netloc, address
            assert address in {None, "data:,"} or urlsplit(address).scheme == "", address
        if name == "script":
            assert (attributes.get("src") or "").startswith(f"{AT}/assets/")
    return page


def plans(visitor: Visitor, path: str, *, small: bool) -> Iterator[tuple[str, str]]:
    """The statements of a page, and how the database carries each of them out.

    Args:
        visitor: who looks at it.
        path: of the page.
        small: as of `plan_of`.
    """
    engine, seen = visitor.host.engine, list[tuple[str, Any]]()

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.append((statement, parameters))

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        visitor.get(path)
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
    with engine.connect() as connection:
        for statement, parameters in seen:
            yield statement, plan_of(connection, statement, parameters, small=small)
