"""Several applications in one process: each event reaches the handlers of the application that it came to, once."""

from __future__ import annotations

import gc
import uuid
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from flask import Flask

from flask_contenthub_webhook import ContentHubWebhook, delivery_processed, task_completed
from flask_contenthub_webhook.contrib.celery import TASK_NAME
from tests.support.host import Host, completed, custom, make_host

Seen = list[tuple[str, str]]
NAMES = ("a", "b", "c")


class World:
    """One extension object, and a factory that makes an application with a database for each name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.webhook = ContentHubWebhook()
        self.seen: Seen = []

    def note(self, app: Flask, *, event: Any, **extra: Any) -> None:
        self.seen.append((app.config["NAME"], "shared"))

    def handler(self, name: str) -> Callable[..., None]:
        def note_own(app: Flask, *, event: Any, **extra: Any) -> None:
            self.seen.append((app.config["NAME"], name))

        return note_own

    def host(self, name: str, *, database: str | None = None, **options: Any) -> Host:
        url = f"sqlite:///{self.folder / (database or name)}.db"
        return make_host(url, webhook=self.webhook, NAME=name, WEBHOOK_EVENTS="scored", **options)


# --- ways in which a factory subscribes ------------------------------------------------------------------------------


def before_there_is_an_application(world: World, name: str) -> Host:
    @world.webhook.on("scored")
    def note(app: Flask, **extra: Any) -> None:
        world.seen.append((app.config["NAME"], name))

    return world.host(name)


def before_init_app(world: World, name: str) -> Host:
    def subscribe(app: Flask) -> None:
        @world.webhook.on("scored")
        def note(app: Flask, **extra: Any) -> None:
            world.seen.append((app.config["NAME"], name))

    return world.host(name, before=subscribe)


def after_init_app(world: World, name: str) -> Host:
    host = world.host(name)
    app = host.app  # as a factory has it

    @world.webhook.on("scored")
    def note(app: Flask, **extra: Any) -> None:
        world.seen.append((app.config["NAME"], name))

    assert app is not None
    return host


def by_a_helper_that_is_not_given_the_application(world: World, name: str) -> Host:
    def subscribe_all() -> None:
        for event_type in ("scored", "rated"):
            world.webhook.on(event_type)(world.handler(name))

    return world.host(name, after=lambda _: subscribe_all())


def in_an_application_context(world: World, name: str) -> Host:
    host = world.host(name)
    with host.app.app_context():
        world.webhook.on("scored")(world.handler(name))
    return host


def while_another_application_is_the_current_one(world: World, name: str) -> Host:
    current = Flask("current")
    with current.app_context():
        del current
        return after_init_app(world, name)


WAYS = [
    before_there_is_an_application,
    before_init_app,
    after_init_app,
    by_a_helper_that_is_not_given_the_application,
    in_an_application_context,
    while_another_application_is_the_current_one,
]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def post_to_each(*hosts: Host) -> None:
    for host in hosts:
        task_id = host.add_task()
        assert host.post(task_id, custom(task_id, "scored"), attempt=1).status_code == 200
        assert host.post(task_id, completed(task_id), attempt=1).status_code == 200


@pytest.mark.parametrize("way", WAYS)
def test_each_event_reaches_the_handlers_that_its_applications_factory_subscribed(
    world: World, way: Callable[[World, str], Host]
):
    hosts = [way(world, name) for name in NAMES]
    post_to_each(*hosts)
    assert world.seen == [(name, name) for name in NAMES]
    for host in hosts:
        host.close()


@pytest.mark.parametrize("way", WAYS[1:])
def test_an_application_whose_factory_does_not_subscribe_gets_nothing(world: World, way: Callable[[World, str], Host]):
    plain, subscribing, later = world.host("a"), way(world, "b"), world.host("c")
    post_to_each(plain, subscribing, later)
    assert world.seen == [("b", "b")]
    for host in (plain, subscribing, later):
        host.close()


# --- at module level -------------------------------------------------------------------------------------------------

MODULE = """
@webhook.on("scored")
def note(app, **extra):
    seen.append((app.config["NAME"], "module"))

class Handlers:
    @webhook.on("scored")
    def note(app, **extra):
        seen.append((app.config["NAME"], "class"))

def on(event_type):
    return webhook.on(event_type)

@on("scored")
def note_again(app, **extra):
    seen.append((app.config["NAME"], "wrapped"))
"""


@pytest.mark.parametrize(
    "loaded", ["first of all", "by the first factory", "in its application context", "last of all"]
)
def test_a_subscription_at_module_level_is_for_all_applications_once(world: World, loaded: str):
    def load(app: Flask | None = None) -> None:
        exec(MODULE, {"__name__": "handlers", "webhook": world.webhook, "seen": world.seen})

    def load_in_context(app: Flask) -> None:
        with app.app_context():
            load(app)

    first = {"by the first factory": load, "in its application context": load_in_context}.get(loaded)
    if loaded == "first of all":
        load()
    hosts = [world.host("a", **({} if first is None else {"after": first})), world.host("b"), world.host("c")]
    if loaded == "last of all":
        load()

    post_to_each(*hosts)
    assert world.seen == [(name, way) for name in NAMES for way in ("module", "class", "wrapped")]
    for host in hosts:
        host.close()


def test_one_function_that_every_factory_subscribes_is_called_once(world: World):
    hosts = [world.host(name, after=lambda app: world.webhook.on("scored")(world.note)) for name in NAMES]
    world.webhook.on("scored")(world.note)
    post_to_each(*hosts)
    assert world.seen == [(name, "shared") for name in NAMES]
    for host in hosts:
        host.close()


def test_handlers_made_in_a_loop_are_all_called(world: World):
    for number in ("1", "2"):
        world.webhook.on("scored")(world.handler(number))
    host = world.host("a")
    post_to_each(host)
    assert world.seen == [("a", "1"), ("a", "2")]
    host.close()


def test_an_application_that_nobody_uses_any_longer_is_released_with_its_handlers(world: World):
    def make() -> weakref.ref[Flask]:
        host = after_init_app(world, "a")
        host.close()
        return weakref.ref(host.app)

    made = [make() for _ in range(3)]
    gc.collect()
    assert [app() for app in made] == [None, None, None]


# --- signals ---------------------------------------------------------------------------------------------------------


def test_a_receiver_that_a_factory_connects_via_its_application_hears_of_no_other(world: World):
    """As the page on signals recommends."""

    def connect(app: Flask) -> None:
        name = app.config["NAME"]

        @task_completed.connect_via(app)
        def publish(app: Flask, **extra: Any) -> None:
            world.seen.append((app.config["NAME"], name))

        @delivery_processed.connect_via(app)
        def note(app: Flask, *, task: Any, **extra: Any) -> None:
            if task.status == "completed":
                world.seen.append((app.config["NAME"], f"{name} afterwards"))

    hosts = [world.host(name, after=connect) for name in NAMES]
    post_to_each(*hosts)
    assert world.seen == [(name, said) for name in NAMES for said in (name, f"{name} afterwards")]
    for host in hosts:
        host.close()


# --- Celery ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("databases", [1, 3])
def test_applications_that_share_a_celery_application_get_their_own_events(world: World, databases: int):
    celery = Celery("host", broker="memory://", set_as_current=False)
    queue = f"queue-{uuid.uuid4()}"  # all that use this kind of broker in one process share its queues
    celery.conf.task_default_queue = queue

    def make(name: str) -> Host:
        return world.host(
            name,
            database=None if databases > 1 else "shared",
            before=lambda app: world.webhook.on("completed")(world.handler(name)),
            models=lambda _: {"celery": celery},
            WEBHOOK_PROCESSING="celery",
        )

    hosts = [make(name) for name in NAMES]
    tasks = [(host, host.add_task()) for host in hosts for _ in range(2)]
    for host, task_id in tasks:
        assert host.post(task_id, completed(task_id), attempt=1).status_code == 202
    celery.loader.import_default_modules()
    with celery.connection_for_read() as connection, connection.SimpleQueue(queue) as messages:
        for _ in tasks:
            message = messages.get(timeout=30)
            celery.tasks[message.headers["task"]].apply(message.payload[0])
            message.ack()
    assert sorted(world.seen) == sorted((host.app.config["NAME"], host.app.config["NAME"]) for host, _ in tasks)
    for host in hosts:
        host.close()


def test_a_wake_up_with_a_number_that_this_worker_does_not_know_finds_its_event(world: World):
    celery = Celery("host", broker="memory://", set_as_current=False)
    host = world.host("a", models=lambda _: {"celery": celery}, WEBHOOK_PROCESSING="celery")
    celery.loader.import_default_modules()
    for number in (0, 1, 7):
        task_id = host.add_task()
        host.post(task_id, completed(task_id), attempt=1)
        celery.tasks[TASK_NAME].apply((task_id, number))
        assert host.task(task_id).status == "completed"
    host.close()


@pytest.mark.parametrize("how", ["given", "found"])
def test_a_celery_application_keeps_the_applications_that_only_it_knows(world: World, how: str):
    """As where a module for the workers says `celery_app = create_app().extensions["celery"]`."""
    celery = Celery("host", broker="memory://", set_as_current=False)
    given = {"models": lambda _: {"celery": celery}} if how == "given" else {}

    def find(app: Flask) -> None:
        app.extensions["celery"] = celery

    task_ids = []
    for name in NAMES[:2]:
        host = world.host(name, **given, before=find, create_tables=True, WEBHOOK_PROCESSING="celery")
        task_ids.append(host.add_task())
        host.connect(task_completed, host.publisher)
        host.post(task_ids[-1], completed(task_ids[-1]), attempt=1)
        host.close()
        del host
    gc.collect()
    celery.loader.import_default_modules()
    for number, task_id in enumerate(task_ids):
        celery.tasks[TASK_NAME].apply((task_id, number))

    hosts = [world.host(name) for name in NAMES[:2]]
    assert [host.task(task_id).status for host, task_id in zip(hosts, task_ids, strict=True)] == ["completed"] * 2
    for host in hosts:
        host.close()
