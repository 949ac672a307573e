"""Tasks and deliveries: listing, paging, showing, replaying, counting, purging."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
import sqlalchemy as sa

from tests.cli.conftest import run, run_json
from tests.support.host import SECRET, completed, failed, progress
from tests.support.skew import pass_time, set_clock


def listed(host, *arguments):
    return run_json(host, "deliveries", "list", *arguments)["deliveries"]


def ids(host):
    """Oldest first. A transaction that was rolled back leaves a gap in them on PostgreSQL."""
    return [row.id for row in host.deliveries()]


class TestTasks:
    def test_they_are_listed_newest_first_and_by_status(self, host):
        first, second = host.add_task(topic="first"), host.add_task(status="failed", topic="second", error_code="E1")

        shown = run(host, "tasks").stdout
        assert shown.index(second) < shown.index(first)
        assert "E1" in shown
        assert [task["task_id"] for task in run_json(host, "tasks")["tasks"]] == [second, first]
        assert [task["task_id"] for task in run_json(host, "tasks", "--status", "failed")["tasks"]] == [second]
        assert [task["task_id"] for task in run_json(host, "tasks", "--text", "SECO")["tasks"]] == [second]
        assert [task["task_id"] for task in run_json(host, "tasks", "--text", "e1")["tasks"]] == [second]
        assert run_json(host, "tasks", "--text", "%")["tasks"] == []
        assert len(run_json(host, "tasks", "--limit", 1)["tasks"]) == 1
        assert "there may be more" in run(host, "tasks", "--limit", 1).stdout

    def test_since_takes_an_age_or_a_time(self, host):
        old = host.add_task(created_at=host.clock() - timedelta(days=3))
        new = host.add_task()

        def since(value):
            return [task["task_id"] for task in run_json(host, "tasks", "--since", value)["tasks"]]

        assert since("2h") == [new]
        assert [task["task_id"] for task in run_json(host, "tasks", "--until", "2h")["tasks"]] == [old]
        assert since("4d") == [new, old]
        assert since((host.clock() - timedelta(days=1)).isoformat()) == [new]

    @pytest.mark.parametrize("by", ["task_id", "creator_task_id"])
    def test_one_is_shown_by_either_id_with_its_history_and_without_its_token(self, host, by):
        task_id = host.add_task(
            creator_task_id="creators-own", callback_url="https://hub.example/x?attempt=1&token=ABC"
        )
        host.post(task_id, progress(task_id, 40))
        host.post(task_id, completed(task_id, "# the article"))
        name = task_id if by == "task_id" else "creators-own"

        shown = run(host, "tasks", "show", name).stdout
        document = run_json(host, "tasks", "show", name)

        assert "# the article" in shown
        assert "token=***" in shown
        assert "ABC" not in shown + str(document)
        assert document["task"]["status"] == "completed"
        assert [row["event"] for row in document["deliveries"]] == ["progress", "completed"]

    def test_an_unknown_one_is_an_error(self, host):
        result = run(host, "tasks", "show", "nobody")

        assert (result.exit_code, result.stderr) == (1, "Error: There is no task nobody.\n")


class TestDeliveries:
    @pytest.fixture
    def history(self, host):
        """Deliveries 1 to 5: progress, completed, its copy, a failure, and a refused one."""
        one, two = host.add_task(), host.add_task(max_retries=0)
        host.post(one, progress(one, 10))
        host.post(one, completed(one))
        host.post(one, completed(one))
        host.post(two, failed(two))
        host.post(two, b"no json")
        return one, two

    def test_filters(self, host, history):
        for arguments, found in (
            ([], [5, 4, 3, 2, 1]),
            (["--event", "completed"], [3, 2]),
            (["--event", "completed", "--event", "failed"], [4, 3, 2]),
            (["--verdict", "duplicate"], [3]),
            (["--verdict", "rejected", "--verdict", "duplicate"], [5, 3]),
            (["--source", "poll"], []),
            (["--source", "webhook", "--event", "progress"], [1]),
            (["--since", "1h"], [5, 4, 3, 2, 1]),
            (["--task", history[1]], [5, 4]),
        ):
            assert [row["id"] for row in listed(host, *arguments)] == found, arguments

    def test_since_leaves_out_what_is_older(self, host, history):
        host.clock.advance(-7200)
        host.post(history[0], completed(history[0]))
        host.clock.advance(7200)

        assert 6 not in [row["id"] for row in listed(host, "--since", "1h")]

    def test_until_and_text(self, host, history):
        host.clock.advance(3600)
        host.post(history[0], completed(history[0], 'später: "ja" 键'))

        assert [row["id"] for row in listed(host, "--until", "30m")] == [5, 4, 3, 2, 1]
        assert [row["id"] for row in listed(host, "--since", "30m")] == [6]
        assert [row["id"] for row in listed(host, "--text", 'später: "ja" 键')] == [6]
        assert [row["id"] for row in listed(host, "--text", "no json")] == [5]
        assert listed(host, "--text", "NO JSON") == []
        assert run_json(host, "deliveries", "replay", "--text", "正文")["matching"] == 2

    def test_follow_has_no_pages(self, host, history):
        assert run(host, "deliveries", "list", "--follow", "--before", 3).exit_code == 2

    def test_pages_by_the_last_id(self, host, history):
        pages: list[list[int]] = []
        before: list[object] = []
        while True:
            page = run_json(host, "deliveries", "list", "--limit", 2, *before)
            pages.append([row["id"] for row in page["deliveries"]])
            if page["next_before"] is None:
                break
            before = ["--before", page["next_before"]]

        assert pages == [[5, 4], [3, 2], [1]]
        assert "Older ones: --before 4" in run(host, "deliveries", "list", "--limit", 2).stdout

    def test_a_list_is_one_statement_without_bodies(self, host, history):
        with host.statements() as statements:
            run(host, "deliveries", "list")

        selects = [statement for statement in statements if statement.startswith("SELECT")]
        assert len(selects) == 1
        assert "body," not in selects[0]
        assert "headers" not in selects[0]

    def test_one_is_shown_with_headers_and_a_pretty_body(self, host, history):
        shown = run(host, "deliveries", "show", 2).stdout

        assert "Content-Type: application/json" in shown
        assert '"event": "completed"' in shown
        assert "正文 🚀" in shown
        assert host.token(history[0]) not in shown

    def test_a_body_that_is_no_text_comes_as_base64(self, host, history):
        host.post(history[0], b"\xff\xfe")

        shown = run_json(host, "deliveries", "show", 6)["delivery"]
        assert (shown["body"], shown["body_base64"]) == (None, "//4=")

    def test_an_unknown_one_is_an_error(self, host):
        result = run(host, "deliveries", "show", 99)

        assert (result.exit_code, result.stderr) == (1, "Error: There is no delivery 99.\n")


class TestReplay:
    @pytest.fixture
    def broken(self, host):
        """Three tasks whose completion the handlers failed at."""
        task_ids = [host.add_task() for _ in range(3)]
        host.publisher.broken = True
        for task_id in task_ids:
            host.post(task_id, completed(task_id))
        host.publisher.broken = False
        return task_ids

    def test_one_by_its_id(self, host, broken):
        parked = ids(host)[1]
        result = run(host, "deliveries", "replay", parked)

        assert result.exit_code == 0
        assert f"Delivery {parked} was replayed as {ids(host)[-1]}: processed, completed." in result.stdout
        assert host.task(broken[1]).status == "completed"
        assert host.delivery(parked).verdict == "replayed"

    def test_by_filter_it_only_counts(self, host, broken):
        result = run(host, "deliveries", "replay", "--verdict", "failed")

        assert result.exit_code == 0
        assert "Matching: 3 deliveries. Nothing was replayed: add --yes to replay 3 of them." in result.stdout
        assert host.contents() == []
        assert run_json(host, "deliveries", "replay", "--verdict", "failed")["replayable"] == 3

    def test_by_filter_with_yes_each_has_its_effect_once(self, host, broken):
        result = run(host, "deliveries", "replay", "--verdict", "failed", "--yes")

        assert result.exit_code == 0
        assert "Replayed: 3 deliveries (3 processed)." in result.stdout
        assert [len(host.contents(task_id)) for task_id in broken] == [1, 1, 1]
        assert run_json(host, "deliveries", "replay", "--verdict", "failed", "--yes")["replayed"] == []
        assert run(host, "deliveries", "replay", "--verdict", "failed").stdout == (
            "Matching: 0 deliveries. Nothing was replayed.\n"
        )

    def test_replays_that_match_the_filter_are_not_replayed_in_their_turn(self, host, broken):
        before = ids(host)
        report = run_json(host, "deliveries", "replay", "--event", "completed", "--yes")

        assert [row["id"] for row in report["replayed"]] == before
        assert len(host.deliveries()) == 6

    def test_many_are_walked_in_batches(self, host, broken, monkeypatch):
        monkeypatch.setattr("flask_contenthub_webhook.storage.queries._BATCH", 2)

        report = run_json(host, "deliveries", "replay", "--source", "webhook", "--yes")

        assert report["verdicts"] == {"processed": 3}

    def test_one_failure_does_not_stop_the_others_and_exits_with_1(self, host, broken):
        first, _, last = ids(host)
        result = run(host, "deliveries", "replay", first, 99, last)

        assert result.exit_code == 1
        assert "Replayed: 2 deliveries (2 processed)." in result.stdout
        assert "Delivery 99 failed: There is no delivery 99." in result.stdout

    def test_what_nobody_vouched_for_is_counted_and_left_alone(self, host, broken):
        host.post(broken[0], completed(broken[0]), path=f"/api/v1/content/callback/{broken[0]}?token=wrong")

        assert run_json(host, "deliveries", "replay", "--since", "1d") == {
            "dry_run": True,
            "matching": 4,
            "replayable": 3,
        }
        assert "1 of them cannot be replayed." in run(host, "deliveries", "replay", "--since", "1d").stdout
        assert run(host, "deliveries", "replay", ids(host)[-1]).exit_code == 1
        assert run_json(host, "deliveries", "replay", "--since", "1d", "--yes")["failures"] == []


class TestStats:
    def test_everything_is_counted_in_four_statements(self, host):
        now = host.clock()
        past, future = now - timedelta(minutes=1), now + timedelta(hours=1)
        host.add_task(status="pending", next_submit_at=past, next_poll_at=future)
        host.add_task(next_poll_at=past, deadline_at=past)
        done = host.add_task()
        host.post(done, completed(done))
        host.post(done, completed(done))
        host.publisher.broken = True
        broken = host.add_task()
        host.post(broken, completed(broken))
        host.clock.advance(60)
        with host.statements() as statements:
            stats = run_json(host, "stats")

        assert len([statement for statement in statements if statement.startswith("SELECT")]) == 4
        assert (
            stats["tasks"]["by_status"] | {"pending": 1, "submitted": 2, "completed": 1} == stats["tasks"]["by_status"]
        )
        assert {k: v for k, v in stats["tasks"].items() if k != "by_status"} == {
            "total": 4,
            "open": 3,
            "overdue": 1,
            "due_for_poll": 1,
            "due_for_submission": 1,
        }
        history = stats["deliveries"]
        assert history["by_verdict"] == {"processed": 1, "duplicate": 1, "failed": 1}
        assert history["recent_by_source"] == {"webhook": 3}
        assert (history["waiting_retries"], history["due_retries"], history["dead"]) == (1, 1, 0)
        assert stats["latency_ms"]["count"] == 1
        assert "open tasks" in run(host, "stats").stdout

    def test_percentiles_are_latencies_that_occurred(self, host):
        model = host.state.delivery_model
        with host.app.app_context():
            host.db.session.add_all(
                model(source="webhook", verdict="processed", latency_ms=float(ms), received_at=host.clock())
                for ms in range(1, 101)
            )
            host.db.session.commit()

        latency = run_json(host, "stats")["latency_ms"]

        assert latency == {"count": 100, "p50": 50, "p90": 90, "p95": 95, "p99": 99, "max": 100}

    def test_an_empty_database_has_no_latency(self, host):
        assert run_json(host, "stats")["latency_ms"]["p50"] is None
        assert run(host, "stats").exit_code == 0


class TestPurge:
    @pytest.fixture
    def old(self, host):
        task_id = host.add_task()
        host.clock.advance(-100 * 86_400)
        host.post(task_id, progress(task_id, 1))
        host.publisher.broken = True
        host.post(task_id, completed(task_id))
        host.clock.advance(100 * 86_400)
        host.post(task_id, progress(task_id, 50))

    def test_it_only_counts(self, host, old):
        assert "add --yes to delete 1 delivery from before" in run(host, "purge").stdout
        assert len(host.deliveries()) == 3

    def test_with_yes_it_deletes_what_is_old_and_not_due_for_a_retry(self, host, old):
        assert run_json(host, "purge", "--yes")["deliveries"] == 1
        assert Counter(row.verdict for row in host.deliveries()) == {"failed": 1, "processed": 1}

    def test_an_age_can_be_given(self, host, old):
        assert run_json(host, "purge", "--older-than", 101)["deliveries"] == 0
        assert run_json(host, "purge", "--older-than", 0.5)["deliveries"] == 1

    def test_verdicts_can_be_chosen(self, host, old):
        assert run_json(host, "purge", "--verdict", "rejected", "--verdict", "dead")["deliveries"] == 0
        assert "1 delivery (processed from before" in run(host, "purge", "--verdict", "processed").stdout
        assert run_json(host, "purge", "--verdict", "processed", "--yes")["deliveries"] == 1
        assert len(host.deliveries()) == 2

    def test_it_says_what_goes_when(self, hosts, sqlite_url):
        host = hosts(sqlite_url, WEBHOOK_HISTORY_RETENTION_BY_VERDICT="rejected=7,dead=0")

        expired = run_json(host, "purge")["expired"]

        assert [rule["verdicts"] for rule in expired][1] == ["rejected"]
        assert "dead" not in expired[0]["verdicts"]
        assert expired[0]["before"] < expired[1]["before"]
        assert run(host, "purge", "--verdict", "dead").exit_code == 2

    def test_history_that_is_kept_for_ever_needs_an_age(self, hosts, sqlite_url):
        host = hosts(sqlite_url, WEBHOOK_HISTORY_RETENTION_DAYS=0)

        assert run(host, "purge", "--yes").exit_code == 2
        assert run(host, "purge", "--older-than", 1, "--yes").exit_code == 0


def test_models_with_other_column_names_are_read_by_attribute(hosts, database_url):
    from flask_contenthub_webhook import DeliveryMixin

    def models(db):
        columns = {"verdict": sa.orm.mapped_column("outcome", sa.String(16)), "__tablename__": "callbacks"}
        return {"delivery_model": type("Callback", (DeliveryMixin, db.Model), columns)}

    host = hosts(database_url, models=models)
    task_id = host.add_task()
    host.post(task_id, completed(task_id))

    assert [row["verdict"] for row in listed(host, "--verdict", "processed")] == ["processed"]
    assert run(host, "stats").exit_code == 0
    assert SECRET not in run(host, "deliveries", "show", 1).output


@pytest.mark.parametrize("hours", [2, -2])
def test_a_time_ago_is_by_the_clock_of_the_database(hosts, postgres_url, hours):
    host = set_clock(hosts(postgres_url), timedelta(hours=hours))
    task_id = host.add_task()
    host.post(task_id, completed(task_id))
    assert [row["task_id"] for row in listed(host, "--since", "5m")] == [task_id]
    pass_time(host, minutes=6)
    assert listed(host, "--since", "5m") == []
