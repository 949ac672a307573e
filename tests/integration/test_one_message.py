"""One signed message has one effect, however it is spelled, wherever its signature stands, whenever it comes again."""

from __future__ import annotations

import base64
import hmac
import itertools
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from celery import Celery
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_contenthub_webhook.core.canonical import canonical_forms, canonical_json
from flask_contenthub_webhook.core.signatures import CONTENTHUB_HEADER, GITHUB_HEADER
from flask_contenthub_webhook.errors import ReplayRefused
from tests.support.databases import FIXTURES, KINDS
from tests.support.host import PREFIX, SECRET, Host, completed, custom, encode, failed, make_host, signed

Build = Callable[..., Host]
Headers = dict[str, str]
MAKERS = [
    pytest.param(lambda task_id: custom(task_id, "noted", score=1.0), id="custom"),
    pytest.param(failed, id="failed"),
]


@pytest.fixture(params=[*(f"{way}-{kind}" for way in ("inline", "worker") for kind in KINDS), "celery-sqlite"])
def hub(request: pytest.FixtureRequest, hosts: Build) -> Host:
    """A host that applies events at once, leaves them to a worker, or to Celery."""
    processing, _, database = request.param.partition("-")
    config: dict[str, Any] = {"WEBHOOK_PROCESSING": processing, "WEBHOOK_EVENTS": "noted"}
    if processing == "celery":
        celery = Celery("host", broker="memory://", set_as_current=False)
        celery.conf.task_always_eager = True
        config["models"] = lambda _: {"celery": celery}
    return hosts(request.getfixturevalue(FIXTURES[database]), **config)


@pytest.fixture
def lite(hosts: Build, sqlite_url: str) -> Host:
    return hosts(sqlite_url, WEBHOOK_EVENTS="noted")


def send(host: Host, task_id: str, body: bytes, headers: Headers, *, attempt: int | None = None) -> int:
    """Send a body to a callback URL without a token, and let a worker apply it where one has to; the status."""
    query = "" if attempt is None else f"?attempt={attempt}"
    answer = host.post(task_id, body, path=f"{PREFIX}/callback/{task_id}{query}", headers=headers)
    host.retry()
    return answer.status_code


def send_batch(host: Host, events: list[Any], headers: Headers | None = None, *, scheme: str = "standard") -> None:
    body = encode({"events": events})
    answer = host.app.test_client().post(
        f"{PREFIX}/callbacks",
        data=body,
        headers=headers or signed(body, scheme, host.clock.now),
        content_type="application/json",
    )
    assert answer.status_code == 200
    assert answer.json is not None
    assert answer.json["success"], answer.json
    host.retry()


def effects(host: Host, task_id: str) -> int:
    return sum(row.verdict == "processed" for row in host.deliveries(task_id))


def proof(message: bytes) -> bytes:
    return hmac.digest(SECRET.encode(), message, "sha256")


def headers_of(digest: bytes) -> list[Headers]:
    """Every header that accepts an HMAC over a body."""
    encoded = base64.b64encode(digest).decode()
    forms = [digest.hex(), digest.hex().upper(), encoded, encoded.rstrip("="), f"sha256={encoded}"]
    return [{CONTENTHUB_HEADER: form} for form in forms] + [{GITHUB_HEADER: f"sha256={digest.hex()}"}]


# --- any spelling, header and order ------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["inline", "worker"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    url = f"sqlite:///{tmp_path_factory.mktemp('message') / 'test.db'}"
    host = make_host(url, WEBHOOK_PROCESSING=request.param, WEBHOOK_EVENTS="noted")
    yield host
    host.close()


class Number(str):
    """A number as it is spelled."""

    __slots__ = ()


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | st.sampled_from(["1", "10", "2"]), inner),
    max_leaves=8,
)


def spell(draw: Callable[..., Any], value: Any) -> str:
    """Write a value down with blanks, escapes, an order of keys and forms of numbers that are drawn."""
    blank: str = draw(st.sampled_from(["", " ", "\n\t"]))
    match value:
        case Number() if "e" not in value.lower():
            ending: str = draw(st.sampled_from(["", "", "00" if "." in value else ".0", "e0", "E+00"]))
            return value + ending
        case Number():
            return value.upper() if draw(st.booleans()) else value
        case str():
            return json.dumps(value, ensure_ascii=draw(st.booleans()))
        case dict():
            keys = draw(st.permutations(list(value)))
            members = (f"{spell(draw, key)}{blank}:{blank}{spell(draw, value[key])}" for key in keys)
            return "{" + blank + f"{blank},".join(members) + "}"
        case list():
            return "[" + blank + ",".join(spell(draw, item) for item in value) + blank + "]"
        case _:
            return json.dumps(value)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), content=st.dictionaries(TEXT, JSON, max_size=3), kind=st.sampled_from(["noted", "failed"]))
def test_a_signed_message_has_one_effect_however_it_is_written_down(
    shared: Host, data: st.DataObject, content: dict[str, Any], kind: str
):
    task_id = shared.add_task()
    payload = failed(task_id, content=content) if kind == "failed" else custom(task_id, "noted", content=content)
    sent = json.dumps(payload, ensure_ascii=data.draw(st.booleans())).encode()
    message = data.draw(st.sampled_from([sent, *canonical_forms(sent)]))
    parsed = json.loads(sent, parse_int=Number, parse_float=Number)
    copies = [spell(data.draw, parsed).encode() for _ in range(data.draw(st.integers(1, 4)))]
    arrivals = data.draw(st.permutations([message, sent, *copies]))

    statuses = []
    for body in arrivals:
        headers = data.draw(st.sampled_from(headers_of(proof(message))))
        statuses.append(send(shared, task_id, body, headers, attempt=data.draw(st.sampled_from([None, 1, 2]))))
    statuses.append(send(shared, task_id, message, headers_of(proof(message))[-1]))

    assert set(statuses) <= {200, 202, 401}
    assert statuses[-1] != 401
    assert effects(shared, task_id) == 1


@pytest.mark.parametrize("make", MAKERS)
def test_a_canonically_signed_message_keeps_its_signature_in_every_spelling_and_has_one_effect(hub: Host, make: Any):
    task_id = hub.add_task()
    payload = make(task_id)
    headers = {CONTENTHUB_HEADER: proof(canonical_json(payload)).hex()}
    spellings = [
        canonical_json(payload),
        json.dumps(payload, indent=1).encode(),
        json.dumps(dict(reversed(payload.items())), ensure_ascii=False).encode(),
        json.dumps(payload).replace("1.0", "1.00").encode(),
        json.dumps(payload).replace("1.0", "10e-1").replace("taskId", "t\\u0061skId").encode(),
    ]

    statuses = [send(hub, task_id, body, headers) for body in spellings]
    hub.clock.advance(3 * 365 * 86_400)
    statuses += [send(hub, task_id, body, headers) for body in spellings]

    assert set(statuses) <= {200, 202}
    assert effects(hub, task_id) == 1
    assert hub.task(task_id).attempt == (2 if make is failed else 1)


@pytest.mark.parametrize("make", MAKERS)
def test_a_github_signature_moved_to_another_header_has_no_second_effect(hub: Host, make: Any):
    task_id = hub.add_task()
    body = canonical_json(make(task_id))
    github, moved = {GITHUB_HEADER: f"sha256={proof(body).hex()}"}, {CONTENTHUB_HEADER: proof(body).hex()}

    statuses = [send(hub, task_id, body, github), send(hub, task_id, json.dumps(json.loads(body)).encode(), moved)]

    assert set(statuses) <= {200, 202}
    assert effects(hub, task_id) == 1


@pytest.mark.parametrize("make", MAKERS)
def test_a_message_that_its_sender_signed_in_every_way_has_one_effect_in_any_order(lite: Host, make: Any):
    """Whoever captured it may leave out all signatures but one."""
    for order in itertools.permutations(["standard", "contenthub", "github", "canonical"]):
        task_id = lite.add_task()
        body = json.dumps(make(task_id)).encode()
        proofs = {name: signed(body, name, lite.clock.now) for name in ("standard", "contenthub", "github")}
        proofs["canonical"] = signed(canonical_json(json.loads(body)), "contenthub", lite.clock.now)

        statuses = {send(lite, task_id, body, proofs[name], attempt=number) for number, name in enumerate(order, 1)}

        assert statuses == {200}
        assert effects(lite, task_id) == 1


def test_two_messages_with_ids_are_two_though_they_say_the_same(hub: Host):
    task_id = hub.add_task()
    body = encode(custom(task_id, "noted"))

    for message_id in ("msg_1", "msg_2", "msg_1"):
        send(hub, task_id, body, signed(body, "standard", hub.clock.now, message_id=message_id))

    assert effects(hub, task_id) == 2


# --- batches -----------------------------------------------------------------------------------------------------


def test_each_event_of_a_standard_batch_is_a_message(hub: Host):
    task_id = hub.add_task()
    events = [custom(task_id, "noted", number=number) for number in range(3)]
    body = encode({"events": events})

    for seconds in (0, 100):  # the sender signs again with a new time when it sends the batch again
        hub.clock.advance(seconds)
        send_batch(hub, events, signed(body, "standard", hub.clock.now, message_id="msg_batch"))

    assert [row.verdict for row in hub.deliveries(task_id)] == ["processed"] * 3 + ["duplicate"] * 3
    assert {row.message_id for row in hub.deliveries(task_id)} == {None}
    assert hub.deliveries(task_id)[0].headers["Webhook-Id"] == "msg_batch"


@pytest.mark.parametrize("scheme", ["standard", "contenthub", "github"])
def test_the_events_of_a_batch_are_the_same_messages_in_another_batch_and_alone(hub: Host, scheme: str):
    task_id = hub.add_task()
    first, second, third = (custom(task_id, "noted", number=number) for number in range(3))

    send_batch(hub, [first, second], scheme=scheme)
    send_batch(hub, [third, second], scheme="standard")
    for event in (first, second, third):
        body = json.dumps(event, indent=2).encode()
        send(hub, task_id, body, signed(body, scheme, hub.clock.now))

    assert effects(hub, task_id) == 3


@pytest.mark.parametrize("scheme", ["standard", "contenthub"])
def test_equal_failures_of_two_attempts_in_one_batch_are_two(hub: Host, scheme: str):
    task_id = hub.add_task()
    events = [failed(task_id, attempt=attempt) for attempt in (1, 2)]

    for event in events:  # a worker numbers an event when it comes, so the second attempt must have begun
        send_batch(hub, [event], scheme=scheme)
    send_batch(hub, events, scheme=scheme)

    assert effects(hub, task_id) == 2
    assert hub.task(task_id).attempt == 3


# --- a withheld failure ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["standard", "contenthub", "github"])
def test_an_attempt_in_the_url_does_not_win_over_the_signed_name_of_the_job(hub: Host, scheme: str):
    task_id = hub.add_task(attempt=2, creator_task_id="job-2", earlier_creator_task_ids=["job-1"])
    body = encode(failed("job-1"))

    for attempt in (2, None, 2):
        send(hub, task_id, body, signed(body, scheme, hub.clock.now), attempt=attempt)

    assert {row.verdict for row in hub.deliveries(task_id)} == {"stale"}
    assert {row.attempt for row in hub.deliveries(task_id)} == {1}
    assert [hub.replay(row.id).verdict for row in hub.deliveries(task_id)[:1]] == ["stale"]
    assert hub.task(task_id).attempt == 2


def test_a_failure_that_came_too_late_stays_so_under_another_attempt(hub: Host):
    task_id = hub.add_task(attempt=2)
    body = encode(failed(task_id))

    for attempt in (1, 2, None):
        send(hub, task_id, body, signed(body, "contenthub", hub.clock.now), attempt=attempt)

    assert [row.verdict for row in hub.deliveries(task_id)] == ["stale", "duplicate", "duplicate"]
    assert hub.task(task_id).attempt == 2


def test_a_failure_that_came_with_an_attempt_that_is_not_there_yet_can_still_come(hub: Host):
    """Otherwise a stranger who is faster than the sender could keep it away."""
    task_id = hub.add_task()
    body = encode(failed(task_id))

    for attempt in (9, 1):
        send(hub, task_id, body, signed(body, "contenthub", hub.clock.now), attempt=attempt)

    assert [row.verdict for row in hub.deliveries(task_id)] == ["stale", "processed"]


# --- after the history was purged ----------------------------------------------------------------------------------


def purge(host: Host, **options: Any) -> int:
    with host.app.app_context():
        return host.webhook.purge(**options)


@pytest.mark.parametrize("make", MAKERS)
def test_a_message_is_remembered_after_its_delivery_was_purged(hub: Host, make: Any):
    task_id = hub.add_task()
    body = encode(make(task_id))
    headers = {CONTENTHUB_HEADER: proof(body).hex()}
    send(hub, task_id, body, headers)

    hub.clock.advance(timedelta(days=1000).total_seconds())
    assert purge(hub) == 0
    send(hub, task_id, body, headers)

    first, second = hub.deliveries(task_id)
    assert (first.verdict, second.verdict) == ("processed", "duplicate")
    assert (first.body, first.headers, first.remote_addr) == (b"", None, None)


def test_what_cannot_have_an_effect_again_is_not_remembered(lite: Host):
    done, gone = lite.add_task(status="completed"), lite.add_task()
    kept = lite.add_task(status="completed")
    for task_id, event in ((done, failed(done)), (gone, custom(gone, "noted")), (kept, custom(kept, "noted"))):
        lite.post_signed(task_id, event, "contenthub")
    lite.post(kept, custom(kept, "noted", number=2))  # a token signs no message
    with lite.app.app_context():
        model = lite.state.task_model
        lite.db.session.execute(lite.db.delete(model).where(model.task_id == gone))
        lite.db.session.commit()

    lite.clock.advance(timedelta(days=91).total_seconds())

    assert purge(lite) == 3
    assert [row.task_id for row in lite.deliveries()] == [kept]


def test_an_emptied_delivery_is_written_once_and_goes_with_its_task(host: Host):
    task_id = host.add_task()
    host.post_signed(task_id, failed(task_id), "github")
    host.clock.advance(timedelta(days=91).total_seconds())
    for verdicts in ([], ["processed"]):
        assert purge(host, before=host.clock.now, verdicts=verdicts) == 0
    with host.statements() as statements:
        assert purge(host) == 0
    assert not [line for line in statements if line.startswith(("UPDATE", "DELETE"))]

    host.post_signed(task_id, completed(task_id), "github")

    assert purge(host) == 1


def test_an_emptied_delivery_has_nothing_to_replay(lite: Host):
    task_id = lite.add_task()
    lite.post_signed(task_id, custom(task_id, "noted"), "standard")
    purge(lite, before=lite.clock.now + timedelta(seconds=1))

    with pytest.raises(ReplayRefused, match="no body"):
        lite.replay(lite.deliveries(task_id)[0].id)
