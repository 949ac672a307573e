"""`make demo` fails, and says what is wrong, when the application or the extension is broken."""

from __future__ import annotations

import pytest

from tests.support.demo import assert_failed, broken_copy, run_demo

pytestmark = pytest.mark.slow

ADD = "    db.session.add(content)\n"
ADD_ANOTHER = (
    'db.session.add(Content(task_id=task.task_id, account_id=task.account_id, title="again", body="", images=[]))\n'
)
ADD_TWICE = f"{ADD}    {ADD_ANOTHER}"
ADD_TWICE_IF_POLLED = f'{ADD}    if _extra["delivery"].source == "poll":\n        {ADD_ANOTHER}'
SCHEDULER = '    "WEBHOOK_SCHEDULER_ENABLED": "true",\n'


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("handlers.py", ADD, ADD_TWICE), "Every completed task has one content, no other has any"),
        (
            ("config.py", '"WEBHOOK_REQUIRE_SIGNATURE": True', '"WEBHOOK_REQUIRE_SIGNATURE": False'),
            "expected: 403 signature_missing",
        ),
        (
            ("handlers.py", '    title=title_of(result["content"])', '    title=result["no such field"]'),
            "500 handler_failed",
        ),
    ],
    ids=["doubled effects", "no signature needed", "a handler that raises"],
)
def test_callbacks_fail_when_the_application_is_broken(tmp_path, change, complaint):
    demo = run_demo(folder=broken_copy(tmp_path, change))
    assert_failed(demo, complaint)
    assert "Part 2" not in demo.stdout


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            [("handlers.py", ADD, ADD_TWICE_IF_POLLED)],
            "Every completed task has one content, no other has any: ",
        ),
        (
            [("demo/loop.py", SCHEDULER, f'{SCHEDULER}    "WEBHOOK_REQUIRE_SIGNATURE": "false",\n')],
            "No forged callback was accepted, and every content is the creator's own: 3 tried, 1 accepted",
        ),
        (
            [
                ("demo/loop.py", SCHEDULER, ""),
                ("demo/loop.py", "LONGEST_STANDSTILL = 40.0", "LONGEST_STANDSTILL = 12.0"),
            ],
            "its callback is never sent: submitted, not completed",
        ),
    ],
    ids=["doubled effects of polls", "no signature needed", "no poller"],
)
def test_the_loop_fails_when_something_is_broken(tmp_path, changes, complaint):
    assert_failed(run_demo("loop", folder=broken_copy(tmp_path, *changes)), complaint)
