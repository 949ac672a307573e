"""The example application: its migrations, what its handlers do on a callback, and what its people can do."""

from __future__ import annotations

import re
import stat
import time

import flask_migrate
import pytest
from sqlalchemy import inspect, select, text

from example_app import create_app
from example_app.config import own_secret
from example_app.database import database_uri, engine_options
from example_app.extensions import db, webhook
from example_app.models import Account, AccountNote, Content, Delivery, GenerationTask, PublishPoolEntry
from example_app.server import SetupError, check_dependencies
from example_app.tasks import AUDIENCE, REQUIREMENTS, create_task
from flask_contenthub_webhook.testing import CreatorSimulator

SECRET = "a-secret-of-the-tests-that-is-long-enough"
BASE_URL = "http://localhost"
OLD_TASKS = [
    # id, status, retry_count, completed_at, timeout_at
    (1, "pending", 0, None, None),
    (2, "running", 2, None, "2026-11-01 10:30:00.000000"),
    (3, "completed", 0, "2026-11-01 10:05:00.123456", None),
    (4, "failed", 3, "2026-11-01 10:06:00.000000", None),
]

OURS = {"content_generation_tasks", "webhook_deliveries", "webhook_forwards", "webhook_forward_attempts"}
"""Tables whose ids never come again."""


def connects(url):
    """The test's own session is as long as the test, and sees what requests commit meanwhile on MariaDB, too."""
    options = {"isolation_level": "READ COMMITTED"} if url.startswith("mysql") else engine_options(url)
    return {"SQLALCHEMY_DATABASE_URI": url, "SQLALCHEMY_ENGINE_OPTIONS": options}


@pytest.fixture
def app(database_url):
    app = create_app({**connects(database_url), "WEBHOOK_SECRET_KEY": SECRET, "TESTING": True})
    with app.app_context():
        yield app
        db.session.remove()
        db.engine.dispose()


@pytest.fixture
def hub(app):
    """The application over a migrated database, with a client."""
    flask_migrate.upgrade()
    return app.test_client()


def order(min_quality=None, **columns):
    """A task for an account of its own."""
    account = Account(name="Tech Weekly", min_quality=min_quality)
    db.session.add(account)
    db.session.flush()
    task = create_task(account, "Cats", base_url=BASE_URL, **columns)
    db.session.commit()
    return task


def call_back(client, task, event, **fields):
    answer = client.post(task.callback_url, json={"event": event, "taskId": task.task_id, **fields})
    db.session.expire_all()
    assert answer.status_code == 200, answer.text
    return answer.json["outcome"]


def complete(client, task, **result):
    return call_back(client, task, "completed", result={"content": "# Of cats\n\nThey purr.", **result})


def only(model):
    return db.session.scalars(select(model)).one()


def every(model):
    return db.session.scalars(select(model).order_by(model.id)).all()


class TestMigrations:
    def test_the_models_need_nothing_that_the_migrations_lack(self, app):
        flask_migrate.upgrade()
        flask_migrate.check()

    def test_they_make_what_create_all_makes_constraints_included(self, app):
        if db.engine.dialect.name == "mysql":
            pytest.skip("the oldest table keeps the collation that it has")
        flask_migrate.upgrade()
        migrated = schema_of(db.engine)
        flask_migrate.downgrade(revision="base")
        db.create_all()

        assert migrated == schema_of(db.engine)

    def test_every_constraint_has_a_name(self, app):
        flask_migrate.upgrade()
        for table in schema_of(db.engine).values():
            assert all(name for kind in ("uniques", "foreign_keys", "checks", "indexes") for name in table[kind])

    def test_every_key_has_a_name_unless_sqlite_counts_it(self, app):
        if db.engine.dialect.name == "mysql":
            pytest.skip("a primary key has no name there")
        flask_migrate.upgrade()
        counted = set()
        if db.engine.dialect.name == "sqlite":  # AUTOINCREMENT leaves no place for a name
            counted = OURS
            made = db.session.execute(text("SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%'"))
            assert set(made.scalars()) == OURS
        for name, table in schema_of(db.engine).items():
            assert all(table["keys"]) == (name not in counted)

    def test_old_rows_are_kept_and_made_fit_for_callbacks(self, app):
        write_old_database()
        flask_migrate.upgrade()

        tasks = every(GenerationTask)
        assert [(task.id, task.status, task.attempt) for task in tasks] == [
            (1, "pending", 1),
            (2, "processing", 3),
            (3, "completed", 1),
            (4, "failed", 4),
        ]
        assert [task.next_poll_at is not None for task in tasks] == [True, True, False, False]
        assert [task.topic for task in tasks] == ["猫 1", "猫 2", "猫 3", "猫 4"]
        assert tasks[2].finished_at.isoformat() == "2026-11-01T10:05:00.123456+00:00"
        assert tasks[1].deadline_at.isoformat() == "2026-11-01T10:30:00+00:00"
        assert tasks[0].keywords == ["purr"]
        assert only(Content).task_id == tasks[2].task_id
        assert only(PublishPoolEntry).content.title == "Of cats"

    def test_an_old_open_task_can_be_completed_by_a_callback(self, app):
        write_old_database()
        flask_migrate.upgrade()
        task = db.session.get_one(GenerationTask, 2)
        url = webhook.callback_url(task.task_id, task.attempt, base_url=BASE_URL)
        body = {"event": "completed", "taskId": task.task_id, "result": {"content": "# New"}}
        answer = app.test_client().post(url, json=body)
        assert (answer.status_code, answer.json.get("outcome")) == (200, "processed"), answer.text

    def test_down_and_up_again_loses_no_old_row(self, app):
        write_old_database()
        before = old_tasks()
        flask_migrate.upgrade()
        flask_migrate.downgrade(revision="0001")

        assert old_tasks() == before
        flask_migrate.upgrade()
        flask_migrate.check()
        assert len(every(GenerationTask)) == len(OLD_TASKS)

    def test_down_to_nothing_leaves_nothing(self, app):
        flask_migrate.upgrade()
        flask_migrate.downgrade(revision="base")
        assert schema_of(db.engine) == {}

    def test_new_rows_get_numbers_after_the_old_ones(self, app):
        write_old_database()
        flask_migrate.upgrade()
        task = create_task(db.session.get_one(Account, 1), "Dogs", base_url=BASE_URL)
        db.session.commit()
        assert task.id == 5

    def test_foreign_keys_hold_after_a_migration_in_the_same_process(self, app):
        flask_migrate.upgrade()
        with db.engine.connect() as connection:
            if connection.dialect.name == "sqlite":
                assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1

    def test_flask_db_says_what_it_does(self, app):
        runner = app.test_cli_runner()
        upgraded, checked = runner.invoke(args=["db", "upgrade"]), runner.invoke(args=["db", "check"])

        assert upgraded.output.count("upgrade 000") == 4
        assert checked.exit_code == 0, checked.output

    def test_the_sql_can_be_printed_for_a_database_administrator(self, app):
        if db.engine.dialect.name == "sqlite":
            pytest.skip("batch mode reads the old table")
        printed = app.test_cli_runner().invoke(args=["db", "upgrade", "--sql"])
        assert printed.exit_code == 0, printed.output
        assert "ALTER TABLE content_generation_tasks ADD COLUMN callback_url" in printed.output


class TestCallbacks:
    def test_a_good_result_of_an_auto_approved_task_goes_into_the_pool(self, hub):
        task = order(min_quality=8, auto_approve=True)
        images = [{"url": "https://example.com/cat.png"}]
        assert complete(hub, task, images=images, qualityScore=8.4, wordCount=3) == "processed"

        content = only(Content)
        assert (content.title, content.body, content.images) == ("Of cats", "# Of cats\n\nThey purr.", images)
        assert (content.quality_score, content.word_count, content.account_id) == (8.4, 3, task.account_id)
        assert content.review_status == "approved"
        assert only(PublishPoolEntry).content is content

    @pytest.mark.parametrize(
        ("min_quality", "auto_approve", "result"),
        [
            (None, False, {"qualityScore": 9.9}),
            (8, True, {"qualityScore": 7.9}),
            (8, True, {}),
        ],
        ids=["nobody said auto-approve", "it scores too little", "it has no score"],
    )
    def test_other_results_wait_for_a_reviewer(self, hub, min_quality, auto_approve, result):
        complete(hub, order(min_quality=min_quality, auto_approve=auto_approve), **result)

        assert only(Content).review_status == "pending_review"
        assert every(PublishPoolEntry) == []

    def test_an_account_that_demands_no_score_takes_a_result_without_one(self, hub):
        complete(hub, order(auto_approve=True))
        assert only(Content).review_status == "approved"

    def test_a_late_result_is_reviewed_even_where_the_task_says_auto_approve(self, hub):
        task = order(auto_approve=True, max_retries=0)
        call_back(hub, task, "failed", error={"message": "no"})
        complete(hub, task)

        assert only(GenerationTask).status == "completed"
        assert only(Content).review_status == "pending_review"

    def test_a_result_without_a_heading_is_named_after_its_task(self, hub):
        complete(hub, order(), content="They purr.")
        assert only(Content).title == "Cats"

    def test_numbers_that_no_column_would_take_are_left_out(self, hub):
        complete(hub, order(), qualityScore=10**30, wordCount=10**12)
        assert (only(Content).quality_score, only(Content).word_count) == (None, None)

    def test_the_same_result_again_changes_nothing(self, hub):
        task = order(auto_approve=True)
        assert [complete(hub, task) for _ in range(3)] == ["processed", "duplicate", "duplicate"]
        assert len(every(Content)) == len(every(PublishPoolEntry)) == 1

    def test_a_failure_is_noted_for_the_account_with_what_follows(self, hub):
        task = order(max_retries=1)
        first = task.callback_url
        assert hub.post(first, json=failure(task)).json["outcome"] == "processed"
        assert hub.post(first, json=failure(task)).json["outcome"] == "stale"
        db.session.expire_all()
        assert call_back(hub, task, "failed", error={"message": "out of ink"}) == "processed"

        notes = [note.text for note in every(AccountNote)]
        assert notes == [
            "“Cats” failed: out of ink. Attempt 2 follows.",
            "“Cats” failed: out of ink. There will be no other attempt.",
        ]
        assert only(GenerationTask).status == "failed"
        assert every(Content) == []

    def test_progress_is_stored_in_the_task(self, hub):
        task = order()
        call_back(hub, task, "progress", progress={"percentage": 40})
        assert (task.status, task.progress_percentage) == ("processing", 40)

    def test_an_unsigned_callback_is_refused(self, hub):
        task = order()
        answer = hub.post(task.callback_url.partition("?")[0], json=failure(task))
        assert (answer.status_code, answer.json["error"]["code"]) == (403, "signature_missing")
        assert every(AccountNote) == []

    def test_the_history_is_a_model_of_the_host(self, hub):
        task = order()
        complete(hub, task)
        delivery = only(Delivery)
        assert (delivery.task_id, delivery.verdict, delivery.scheme) == (task.task_id, "processed", "url")


class TestPeople:
    def test_approve_puts_a_content_into_the_pool_once(self, hub):
        complete(hub, order())
        url = f"/api/hub/contents/{only(Content).id}/approve"

        assert hub.post(url).json["review_status"] == "approved"
        assert hub.post(url).status_code == 409
        assert [entry["content"]["title"] for entry in hub.get("/api/hub/pool").json] == ["Of cats"]

    def test_reject_keeps_it_out(self, hub):
        complete(hub, order())
        url = f"/api/hub/contents/{only(Content).id}"

        assert hub.post(f"{url}/reject").json["review_status"] == "rejected"
        assert hub.post(f"{url}/approve").status_code == 409
        assert hub.get("/api/hub/pool").json == []

    def test_publish_takes_it_out_of_the_pool_once(self, hub):
        complete(hub, order(auto_approve=True))
        url = f"/api/hub/pool/{only(PublishPoolEntry).id}/publish"

        assert hub.post(url).json["review_status"] == "published"
        assert hub.post(url).status_code == 409
        assert hub.get("/api/hub/pool").json == []

    @pytest.mark.parametrize("path", ["contents/7/approve", "contents/7/reject", "pool/7/publish"])
    def test_there_is_nothing_to_decide_about_what_is_not_there(self, hub, path):
        assert hub.post(f"/api/hub/{path}").status_code == 409

    def test_a_task_ordered_over_the_api_comes_with_a_callback_url_that_works(self, hub):
        ordered = hub.post("/api/hub/tasks", json={"topic": "Dogs", "auto_approve": True})
        assert ordered.status_code == 201

        body = {"event": "completed", "taskId": ordered.json["task_id"], "result": {"content": "# Of dogs"}}
        assert hub.post(ordered.json["callback_url"], json=body).json["outcome"] == "processed"
        assert [task["status"] for task in hub.get("/api/hub/tasks").json] == ["completed"]
        assert [content["review_status"] for content in hub.get("/api/hub/contents").json] == ["approved"]

    @pytest.mark.parametrize("body", [{}, {"topic": "  "}, []])
    def test_a_task_needs_a_topic(self, hub, body):
        assert hub.post("/api/hub/tasks", json=body).status_code == 400

    def test_the_page_shows_it_all_and_its_buttons_work(self, hub):
        assert hub.post("/tasks", data={"topic": "<Dogs>"}).status_code == 303
        task = only(GenerationTask)
        call_back(hub, task, "failed", error={"message": "out of ink"})
        complete(hub, task)
        content = only(Content)

        page = hub.get("/").text
        assert all(words in page for words in ("&lt;Dogs&gt;", "Of cats", "pending review", "out of ink"))
        assert hub.post(f"/contents/{content.id}/approve", follow_redirects=True).status_code == 200
        assert "approved" in hub.get("/").text
        assert hub.post(f"/pool/{only(PublishPoolEntry).id}/publish", follow_redirects=True).status_code == 200
        assert "published" in hub.get("/").text

    def test_the_page_is_short_whatever_there_is_and_leads_on(self, hub):
        order()
        tasks = [create_task(only(Account), f"Cats {number}", base_url=BASE_URL) for number in range(20)]
        db.session.commit()
        page = hub.get("/").text

        assert page.count(">Timeline</a>") == 8
        assert 'href="/?all=tasks#tasks">Show 21</a>' in page
        assert hub.get("/?all=tasks").text.count(">Timeline</a>") == 21
        timeline = re.findall(r'href="(/webhooks/task\?id=[^"]+)"', page)[0]
        assert hub.get(timeline).status_code == 200
        assert tasks[-1].topic in hub.get(timeline).text
        for file in re.findall(r'<link rel="(?:icon|stylesheet)" href="([^"]+)"', page):
            assert hub.get(file, buffered=True).status_code == 200


class TestCreator:
    @pytest.fixture
    def creator(self):
        with CreatorSimulator(time_scale=0.01) as creator:
            yield creator

    @pytest.fixture
    def submitting_hub(self, creator, database_url):
        """The application with a creator; that one's callbacks find nobody, but its answers do."""
        settings = {"CREATOR_API_BASE_URL": creator.base_url, "WEBHOOK_CALLBACK_BASE_URL": "http://127.0.0.1:9"}
        app = create_app({**connects(database_url), "WEBHOOK_SECRET_KEY": SECRET, "TESTING": True, **settings})
        with app.app_context():
            flask_migrate.upgrade()
            yield app.test_client()
            app.extensions["contenthub_webhook"].creator.close()
            db.session.remove()
            db.engine.dispose()

    def test_a_task_ordered_over_the_api_is_handed_to_the_creator(self, submitting_hub, creator):
        order = {"topic": "Dogs", "account": "Dog Weekly", "requirements": "Short.", "target_audience": "Cats"}
        ordered = submitting_hub.post("/api/hub/tasks", json=order)
        assert ordered.status_code == 201
        assert ordered.json["callback_url"].startswith("http://127.0.0.1:9/api/v1/content/callback/")
        wait_until_settled(submitting_hub)

        (known,) = creator.tasks.values()
        assert (known.topic, known.requirements, known.target_audience) == ("Dogs", "Short.", "Cats")
        assert known.callback_url == ordered.json["callback_url"]
        assert [task["status"] for task in submitting_hub.get("/api/hub/tasks").json] == ["completed"]
        assert only(Content).body == known.result["content"]
        assert only(Account).name == "Dog Weekly"

    def test_the_form_says_what_the_creator_needs_to_know_where_nobody_does(self, submitting_hub, creator):
        page = submitting_hub.get("/").text
        assert all(f'name="{name}"' in page for name in ("account", "topic", "requirements", "target_audience"))
        assert submitting_hub.post("/tasks", data={"topic": "Dogs", "requirements": " "}).status_code == 303
        wait_until_settled(submitting_hub)

        (known,) = creator.tasks.values()
        assert (known.topic, known.requirements, known.target_audience) == ("Dogs", REQUIREMENTS, AUDIENCE)
        assert only(Account).name == "Tech Weekly"

    def test_where_there_is_no_creator_the_form_does_not_ask_for_what_nobody_would_read(self, hub):
        page = hub.get("/").text
        assert 'name="account"' in page
        assert 'name="requirements"' not in page


class TestConfiguration:
    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("postgres://u:p@h/d", "postgresql+psycopg://u:p@h/d"),
            ("postgresql://h/d?sslmode=require", "postgresql+psycopg://h/d?sslmode=require"),
            ("postgresql+psycopg://h/d", "postgresql+psycopg://h/d"),
            ("mysql://u:p@h/d?charset=utf8mb4", "mysql+pymysql://u:p@h/d?charset=utf8mb4"),
            ("mariadb://h/d", "mariadb+pymysql://h/d"),
            ("mysql+mysqldb://h/d", "mysql+mysqldb://h/d"),
            ("sqlite:////tmp/x.db", "sqlite:////tmp/x.db"),
            ("", "sqlite:///contenthub.db"),
        ],
    )
    def test_database_url(self, url, expected):
        assert database_uri({"DATABASE_URL": url}) == expected

    def test_sqlite_is_set_up_for_two_workers_and_power_cuts(self, sqlite_url):
        app = create_app({"SQLALCHEMY_DATABASE_URI": sqlite_url, "WEBHOOK_SECRET_KEY": SECRET})
        with app.app_context(), db.engine.connect() as connection:
            pragmas = ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
            found = [connection.exec_driver_sql(f"PRAGMA {pragma}").scalar() for pragma in pragmas]
            assert found == ["wal", 2, 5000, 1]

    def test_the_secret_of_a_machine_is_made_once_and_for_its_owner_alone(self, tmp_path):
        path = tmp_path / "instance" / "webhook_secret"
        first = own_secret(path)

        assert own_secret(path) == first
        assert len(first) >= 32
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert list(path.parent.iterdir()) == [path]

    def test_what_is_not_installed_is_named_with_what_to_do(self):
        with pytest.raises(SetupError, match=r"Not installed: no_such_module.*make demo.*'\.\[demo\]'"):
            check_dependencies("gunicorn", "no_such_module")

    def test_the_environment_wins_over_the_defaults(self, monkeypatch, sqlite_url):
        monkeypatch.setenv("WEBHOOK_REQUIRE_SIGNATURE", "false")
        monkeypatch.setenv("WEBHOOK_SECRET_KEY", SECRET)
        app = create_app({"SQLALCHEMY_DATABASE_URI": sqlite_url})
        health = app.test_client().get("/api/v1/content/health").get_json()
        assert health["signature_required"] is False


def wait_until_settled(client, seconds=15):
    """The creator is called in the background."""
    deadline = time.monotonic() + seconds
    while any(task["status"] in {"pending", "submitted"} for task in client.get("/api/hub/tasks").json):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    db.session.rollback()


def failure(task):
    return {"event": "failed", "taskId": task.task_id, "error": {"message": "out of ink"}}


def schema_of(engine):
    """All that a database says about its tables, but for what Alembic keeps there."""
    inspector = inspect(engine)
    tables = sorted(set(inspector.get_table_names()) - {"alembic_version"})
    return {
        table: {
            "columns": {
                column["name"]: (str(column["type"]), column["nullable"], column["default"])
                for column in inspector.get_columns(table)
            },
            "keys": {inspector.get_pk_constraint(table)["name"]: inspector.get_pk_constraint(table)},
            "uniques": {unique["name"]: unique for unique in inspector.get_unique_constraints(table)},
            "foreign_keys": {key["name"]: key for key in inspector.get_foreign_keys(table)},
            "checks": {check["name"]: check["sqltext"] for check in inspector.get_check_constraints(table)},
            "indexes": {index["name"]: index_facts(index) for index in inspector.get_indexes(table)},
        }
        for table in tables
    }


def index_facts(index):
    options = {key: str(value) for key, value in index.get("dialect_options", {}).items()}
    return index["column_names"], bool(index["unique"]), options


def write_old_database():
    """ContentHub as it was before callbacks, with rows."""
    flask_migrate.upgrade(revision="0001")
    with db.engine.begin() as connection:
        connection.execute(text("INSERT INTO accounts (id, name, created_at) VALUES (1, 'Old', '2026-10-01 00:00')"))
        for number, status, retries, completed_at, timeout_at in OLD_TASKS:
            connection.execute(
                text(
                    "INSERT INTO content_generation_tasks (id, task_id, account_id, topic, keywords, priority,"
                    " auto_approve, status, retry_count, created_at, completed_at, timeout_at) VALUES (:id, :task_id,"
                    """ 1, :topic, '["purr"]', 2, :no, :status, :retries, :created, :done, :timeout)"""
                ),
                {
                    "id": number,
                    "task_id": f"00000000-0000-4000-8000-00000000000{number}",
                    "topic": f"猫 {number}",
                    "no": False,
                    "status": status,
                    "retries": retries,
                    "created": "2026-11-01 10:00:00.000000",
                    "done": completed_at,
                    "timeout": timeout_at,
                },
            )
        connection.execute(
            text(
                "INSERT INTO contents (id, task_id, account_id, title, body, images, review_status, created_at) VALUES"
                " (1, '00000000-0000-4000-8000-000000000003', 1, 'Of cats', 'x', '[]', 'approved', '2026-11-01 10:05')"
            )
        )
        connection.execute(
            text("INSERT INTO publish_pool (id, content_id, added_at) VALUES (1, 1, '2026-11-01 10:05:00')")
        )
        if connection.dialect.name == "postgresql":
            for table, last in {"content_generation_tasks": 4, "accounts": 1, "contents": 1, "publish_pool": 1}.items():
                connection.execute(text(f"SELECT setval('{table}_id_seq', {last})"))


def old_tasks():
    """The rows of the old table, whatever the order of its columns is now."""
    columns = (
        "id, task_id, account_id, topic, requirements, priority, auto_approve, status, retry_count, created_at,"
        " completed_at, timeout_at"
    )
    with db.engine.connect() as connection:
        rows = connection.execute(text(f"SELECT {columns} FROM content_generation_tasks ORDER BY id"))
        return [tuple(row) for row in rows]


class TestHistoryPages:
    @pytest.fixture
    def history(self, app):
        db.create_all()
        return app.test_client()

    def test_they_are_for_whoever_sits_at_this_machine(self, history):
        assert history.get("/webhooks/").status_code == 200
        assert history.get("/webhooks/", environ_base={"REMOTE_ADDR": "203.0.113.9"}).status_code == 403

    def test_the_hub_leads_to_them(self, history):
        assert 'href="/webhooks/"' in history.get("/").text

    def test_their_forms_are_protected_without_a_key_being_set(self, history):
        task = order()
        call_back(history, task, "progress", progress={"percentage": 10})

        assert 'name="dashboard_token"' in history.get("/webhooks/deliveries/1").text
