"""Signatures and tokens, and the task that an authenticated event belongs to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.support.answers import code, outcome, untouched
from tests.support.host import BODY_SCHEMES, OTHER_SECRET, PREFIX, Host, completed, encode, failed, progress, signed

Build = Callable[..., Host]


# --- who is believed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", BODY_SCHEMES)
def test_a_signed_body_is_believed(host: Host, scheme: str):
    task_id = host.add_task()

    assert outcome(host.post_signed(task_id, completed(task_id), scheme)) == "processed"
    assert [row.scheme for row in host.deliveries(task_id)] == [scheme]


@pytest.mark.parametrize("scheme", BODY_SCHEMES)
def test_a_body_signed_with_another_secret_is_not(sqlite_host: Host, scheme: str):
    task_id = sqlite_host.add_task()
    body = encode(completed(task_id))
    headers = signed(body, scheme, sqlite_host.clock.now, secret=OTHER_SECRET)

    answer = sqlite_host.post(task_id, body, path=f"{PREFIX}/callback/{task_id}", headers=headers)

    assert (answer.status_code, code(answer)) == (401, "signature_invalid")
    assert untouched(sqlite_host, task_id)


@pytest.mark.parametrize("offset", [-301, 301])
def test_an_old_or_early_signature_is_expired(sqlite_host: Host, offset: float):
    task_id = sqlite_host.add_task()
    body = encode(completed(task_id))
    headers = signed(body, "standard", sqlite_host.clock.now)
    sqlite_host.clock.advance(-offset)

    answer = sqlite_host.post(task_id, body, path=f"{PREFIX}/callback/{task_id}", headers=headers)

    assert (answer.status_code, code(answer)) == (401, "signature_expired")


def test_an_unsigned_request_is_refused_where_signatures_are_required(host: Host):
    task_id = host.add_task()

    answer = host.post(task_id, completed(task_id), path=f"{PREFIX}/callback/{task_id}")

    assert (answer.status_code, code(answer)) == (403, "signature_missing")
    assert untouched(host, task_id)


def test_an_unsigned_request_is_taken_where_they_are_not(hosts: Build, database_url: str):
    host = hosts(database_url, WEBHOOK_REQUIRE_SIGNATURE=False)
    task_id = host.add_task()

    assert outcome(host.post(task_id, completed(task_id), path=f"{PREFIX}/callback/{task_id}")) == "processed"
    assert host.deliveries(task_id)[0].scheme is None


def test_a_wrong_signature_is_refused_even_where_none_is_required(hosts: Build, sqlite_url: str):
    host = hosts(sqlite_url, WEBHOOK_REQUIRE_SIGNATURE=False)
    task_id = host.add_task()

    answer = host.post(task_id, completed(task_id), path=f"{PREFIX}/callback/{task_id}?token=wrong")

    assert answer.status_code == 401


@pytest.mark.parametrize(("signed_for", "sent_with"), [(1, 2), (1, None), (None, 1)])
def test_a_token_holds_for_its_own_attempt_alone(sqlite_host: Host, signed_for: int | None, sent_with: int | None):
    task_id = sqlite_host.add_task()
    attempt = "" if sent_with is None else f"&attempt={sent_with}"
    path = f"{PREFIX}/callback/{task_id}?token={sqlite_host.token(task_id, signed_for)}{attempt}"

    assert code(sqlite_host.post(task_id, completed(task_id), path=path)) == "signature_invalid"


def test_a_token_of_one_task_opens_no_other(sqlite_host: Host):
    mine, other = sqlite_host.add_task(), sqlite_host.add_task()
    path = f"{PREFIX}/callback/{other}?token={sqlite_host.token(mine)}"

    assert code(sqlite_host.post(other, completed(other), path=path)) == "signature_invalid"
    assert untouched(sqlite_host, other)


def test_an_earlier_secret_still_opens_after_a_rotation(hosts: Build, sqlite_url: str):
    host = hosts(sqlite_url)
    task_id = host.add_task()
    path = host.path(task_id)
    host.state.settings = replace(host.state.settings, secrets=(OTHER_SECRET, *host.state.settings.secrets))

    assert outcome(host.post(task_id, completed(task_id), path=path)) == "processed"


@pytest.mark.parametrize("known", [True, False])
def test_a_stranger_learns_nothing_and_reaches_no_task(host: Host, known: bool):
    task_id = host.add_task()
    asked = task_id if known else "0b5f6a2e-7a0c-4b1e-9c65-2f6d4d6c7f10"

    with host.statements() as statements:
        answer = host.post(asked, completed(asked), path=f"{PREFIX}/callback/{asked}")

    assert answer.status_code == 403
    assert answer.json == {
        "success": False,
        "error": {
            "code": "signature_missing",
            "message": "The request carries no signature, and this application requires one.",
        },
    }
    assert not [statement for statement in statements if "content_generation_tasks" in statement]


# --- whose event it is -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", [*BODY_SCHEMES, "unsigned"])
@pytest.mark.parametrize("make", [completed, failed, lambda task_id: progress(task_id, 50)])
def test_a_body_about_one_task_changes_no_other(hosts: Build, database_url: str, scheme: str, make: Any):
    host = hosts(database_url, WEBHOOK_REQUIRE_SIGNATURE=False)
    mine, other = host.add_task(), host.add_task(creator_task_id="creator-of-other")

    if scheme == "unsigned":
        answer = host.post(other, make(mine), path=f"{PREFIX}/callback/{other}")
    else:
        answer = host.post_signed(other, make(mine), scheme)

    assert (answer.status_code, code(answer)) == (409, "task_mismatch")
    assert untouched(host, other)
    assert untouched(host, mine)


def test_a_completion_for_another_task_is_refused_on_a_finished_task_too(host: Host):
    mine, other = host.add_task(), host.add_task()
    host.post(other, completed(other))

    assert host.post_signed(other, completed(mine), "contenthub").status_code == 409


@pytest.mark.parametrize("name", ["creator-1", "creator-2"])
def test_the_creators_names_of_the_task_are_its_own(host: Host, name: str):
    task_id = host.add_task(creator_task_id="creator-2", earlier_creator_task_ids=["creator-1"], attempt=2)

    assert outcome(host.post_signed(task_id, completed(name), "contenthub")) == "processed"


@pytest.mark.parametrize("scheme", BODY_SCHEMES)
@pytest.mark.parametrize("attempt", [None, 1, 2, 3])
def test_a_signed_body_speaks_for_the_attempt_whose_name_it_holds_whatever_the_url_says(
    host: Host, scheme: str, attempt: int | None
):
    """The query is not signed: an old failure, sent again to another attempt's URL, must not fail that one."""
    task_id = host.add_task(creator_task_id="creator-2", earlier_creator_task_ids=["creator-1"], attempt=2)

    answer = host.post_signed(task_id, failed("creator-1"), scheme, attempt=attempt)

    assert outcome(answer) == "stale"
    assert host.task(task_id).attempt == 2


def test_the_token_vouches_for_the_path_whatever_the_body_calls_the_task(host: Host):
    task_id = host.add_task()

    assert outcome(host.post(task_id, completed("order-42"), attempt=1)) == "processed"
