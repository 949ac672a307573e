"""The example on the page about the simulator: an app against a creator that loses, doubles and forges callbacks."""

# --- the documented example
import pytest

from flask_contenthub_webhook.testing import CreatorSimulator, Faults
from tests.integration.test_host_testing_kit import Article, create_app, db, webhook  # the app of "Testing your app"


@pytest.fixture
def simulator():
    faults = Faults(lose=0.3, duplicate=0.3, forge=0.3)
    with CreatorSimulator(faults=faults, time_scale=0.02) as simulator:
        yield simulator


@pytest.fixture
def app(simulator, tmp_path):
    app = create_app(
        f"sqlite:///{tmp_path / 'host.db'}",
        WEBHOOK_REQUIRE_SIGNATURE=True,  # or the forgeries are believed
        CREATOR_API_BASE_URL=simulator.base_url,
        WEBHOOK_SUBMIT_THREADS=0,  # nothing in the background; webhook_pass() does it
    )
    with app.app_context():
        db.create_all()
        yield app
        db.session.remove()
        db.engine.dispose()


def test_every_task_ends_as_the_creator_says(simulator, webhook_live_app, webhook_clock, webhook_pass):
    wishes = {"requirements": "Short", "target_audience": "All"}
    tasks = [webhook.submit(topic=f"Tea {number}", **wishes) for number in range(8)]
    names = {task.creator_task_id: task.task_id for task in tasks}

    webhook_pass()
    simulator.wait_until_idle()
    webhook_clock.advance(minutes=5)  # what got lost is asked about
    webhook_pass()

    articles = {article.task_id: article.body for article in db.session.scalars(db.select(Article))}
    assert articles == {names[name]: record.result["content"] for name, record in simulator.tasks.items()}
    assert db.session.query(Article).count() == 8


# --- end of the example
