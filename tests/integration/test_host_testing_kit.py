"""The kit that hosts test with, used as its documentation says."""

# --- the documented example
import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from flask_contenthub_webhook import ContentHubWebhook, task_completed
from flask_contenthub_webhook.core.signatures import SCHEMES

db = SQLAlchemy()
webhook = ContentHubWebhook()


class Article(db.Model):  # type: ignore[misc, name-defined]
    id = db.Column(db.Integer, primary_key=True)
    task_id = db.Column(db.String(36), nullable=False)
    body = db.Column(db.Text, nullable=False)


def publish(app, *, task, result, **extra):
    db.session.add(Article(task_id=task.task_id, body=result["content"]))


def create_app(database: str, **config) -> Flask:
    app = Flask(__name__)
    app.config.update(
        TESTING=True,
        SQLALCHEMY_DATABASE_URI=database,
        WEBHOOK_ENABLED=True,
        WEBHOOK_SECRET_KEY="a-secret-of-at-least-32-characters",
        WEBHOOK_CALLBACK_BASE_URL="https://hub.example.com",
        **config,
    )
    db.init_app(app)
    webhook.init_app(app, db)
    task_completed.connect(publish, sender=app)
    return app


@pytest.fixture
def app(tmp_path):
    app = create_app(f"sqlite:///{tmp_path / 'host.db'}")
    with app.app_context():
        db.create_all()
        yield app
        db.session.remove()
        db.engine.dispose()


@pytest.fixture
def task(app):
    task = webhook.task_model(topic="Tea")
    db.session.add(task)
    db.session.commit()
    return task.task_id


def test_a_completed_task_becomes_an_article(task, webhook_callback, webhook_signals):
    answer = webhook_callback.completed(task, {"content": "# Tea"})

    assert answer.status_code == 200
    assert webhook_signals.names == ["task_completed", "delivery_processed"]
    assert db.session.scalars(db.select(Article.body)).all() == ["# Tea"]


def test_a_second_copy_changes_nothing(task, webhook_callback):
    webhook_callback.completed(task)
    answer = webhook_callback.completed(task)

    assert answer.get_json()["outcome"] == "duplicate"
    assert db.session.query(Article).count() == 1


def test_a_task_that_nobody_reports_on_times_out(task, webhook_clock, webhook_pass):
    db.session.get(webhook.task_model, 1).deadline_at = webhook_clock.now
    db.session.commit()

    webhook_clock.advance(minutes=31)
    report = webhook_pass()

    assert report.timed_out == 1
    assert db.session.get(webhook.task_model, 1, populate_existing=True).status == "timeout"


def test_the_whole_loop_against_a_creator(app, creator_simulator, webhook_live_app, webhook_pass):
    task_id = webhook.submit(topic="Tea", requirements="Short", target_audience="All").task_id

    webhook_pass()  # hands the task over
    creator_simulator.wait_until_idle()  # it has worked and called back

    body = db.session.scalars(db.select(Article.body).filter_by(task_id=task_id)).one()
    assert body == creator_simulator.tasks[app_task(task_id).creator_task_id].result["content"]


def app_task(task_id):
    return db.session.scalars(db.select(webhook.task_model).filter_by(task_id=task_id)).one()


# --- end of the example


@pytest.mark.parametrize("scheme", SCHEMES)
def test_callbacks_can_be_signed_in_every_scheme(scheme, task, webhook_callback):
    assert webhook_callback.completed(task, scheme=scheme).status_code == 200


def test_an_unsigned_callback_can_be_sent_too(app, task, webhook_callback):
    answer = webhook_callback.completed(task, scheme="none", attempt=None)

    assert answer.status_code == 200
    [delivery] = db.session.scalars(db.select(webhook.delivery_model)).all()
    assert delivery.scheme is None


def test_recorded_signals_hold_what_a_test_asks_for(task, webhook_callback, webhook_signals):
    webhook_callback.failed(task, "no luck")
    [failed] = webhook_signals["task_failed"]

    assert failed["task_id"] == task
    assert failed["error"]["message"] == "no luck"
    assert failed["will_retry"] is True


def test_after_a_test_the_app_has_its_own_clock_again(app, request):
    state = app.extensions["contenthub_webhook"]
    real = state.clock
    clock = request.getfixturevalue("webhook_clock")
    assert state.clock is clock

    clock.restore()

    assert state.clock is real
