"""The mutants: small faults of the kind that a change of the package could bring in, and what finds each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["MUTANTS", "Mutant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A fault.

    Args:
        name: of it, in words.
        why: the promise that it breaks.
        file: below the package.
        old: text that is there once.
        new: what stands there instead.
        killers: what is run until one of them finds it: names of the model's searches, ``interleavings:`` with a
            database and a pair of events, ids of tests.
    """

    name: str
    why: str
    file: str
    old: str
    new: str
    killers: tuple[str, ...]


_MACHINE, _STATEMENTS, _STORE = "core/state_machine.py", "storage/task_statements.py", "storage/store.py"
_APPLY, _HANDOVER, _RECONCILE = "engine/apply.py", "tasks/handover.py", "tasks/reconcile.py"
_STRAYS, _CHANGES, _FAILURES = "engine/stray_jobs.py", "engine/task_changes.py", "engine/failures.py"
_INBOX, _RETRY = "storage/inbox_statements.py", "engine/retry.py"
_AGAIN, _CUT = "another attempt of the host's", "a cancellation is cut off"
_OFF, _SECOND = "the hand-over is cut off", "a second attempt"
_LATE, _SIGNED = "deadline, late results", "signed bodies"

MUTANTS: Final = (
    # --- the table ---
    Mutant(
        name="a completed task completes again",
        why="exactly-once effect",
        file=_MACHINE,
        old="        completed=Rule.DUPLICATE,\n        failed=Rule.COMPLETE_LATE,",
        new="        completed=Rule.COMPLETE_LATE,\n        failed=Rule.COMPLETE_LATE,",
        killers=("forged, changed, in progress", _SECOND),
    ),
    Mutant(
        name="a cancelled task completes",
        why="terminal states never regress",
        file=_MACHINE,
        old="        timeout=Rule.COMPLETE_LATE,\n        cancelled=Rule.IGNORE,",
        new="        timeout=Rule.COMPLETE_LATE,\n        cancelled=Rule.COMPLETE_LATE,",
        killers=(_AGAIN, _CUT),
    ),
    Mutant(
        name="a completed task is cancelled",
        why="terminal states never regress",
        file=_MACHINE,
        old="Rule.CANCEL, completed=Rule.REFUSE,",
        new="Rule.CANCEL, completed=Rule.CANCEL,",
        killers=(_AGAIN, _CUT),
    ),
    Mutant(
        name="a completed task gets another attempt",
        why="terminal states never regress",
        file=_MACHINE,
        old="Rule.REFUSE, completed=Rule.REFUSE, failed=Rule.RETRY,",
        new="Rule.REFUSE, completed=Rule.RETRY, failed=Rule.RETRY,",
        killers=(_AGAIN,),
    ),
    Mutant(
        name="a completed task times out",
        why="terminal states never regress",
        file=_MACHINE,
        old="Rule.TIME_OUT, completed=Rule.IGNORE,",
        new="Rule.TIME_OUT, completed=Rule.TIME_OUT,",
        killers=("a deadline beside a callback, foreign names",),
    ),
    Mutant(
        name="the attempt of an event is not compared",
        why="an old attempt's failure never fails a newer attempt",
        file=_MACHINE,
        old="attempt is not None and attempt != task.attempt:",
        new="attempt is not None and attempt > task.attempt:",
        killers=(_SECOND,),
    ),
    Mutant(
        name="retries are not counted",
        why="at most max_retries attempts after the first",
        file=_MACHINE,
        old="case Rule.RETRY_OR_FAIL if retryable and task.attempt <= task.max_retries:",
        new="case Rule.RETRY_OR_FAIL if retryable:",
        killers=("a failure, and no other attempt, own names",),
    ),
    Mutant(
        name="the late flag is lost",
        why="late is never silent",
        file=_MACHINE,
        old="late=rule is Rule.COMPLETE_LATE)",
        new="late=False)",
        killers=(_LATE,),
    ),
    Mutant(
        name="a copy that was applied is applied again",
        why="one signed message, one effect",
        file=_MACHINE,
        old="    if seen_before:",
        new="    if seen_before and trigger is Trigger.CUSTOM:",
        killers=(_SIGNED,),
    ),
    Mutant(
        name="progress goes backwards",
        why="progress is monotonic",
        file=_MACHINE,
        old="        if new < stored:",
        new="        if new < 0:",
        killers=("tests/unit/test_transitions.py",),
    ),
    # --- the statements ---
    Mutant(
        name="the UPDATE completes tasks that have ended",
        why="exactly-once effect: its row count decides",
        file=_STATEMENTS,
        old='.where(by_task_id, sa.or_(*(t["status"] == literal(state.value) for state in OPEN_STATES)), *wait)',
        new=".where(by_task_id, *wait)",
        killers=("forged, changed, in progress", _SECOND),
    ),
    Mutant(
        name="a compare-and-set does not compare",
        why="one compare-and-set on the row decides",
        file=_STATEMENTS,
        old='t["version"] == sa.bindparam("at_version")',
        new='t["version"] >= sa.bindparam("at_version")',
        killers=("interleavings: postgresql failed cancel",),
    ),
    Mutant(
        name="the claim of a submission does not move its time",
        why="never pay twice",
        file=_STATEMENTS,
        old='changes={"next_submit_at": moved("at_until", t["next_submit_at"].type)},',
        new='changes={"next_submit_at": sa.case((sa.true(), t["next_submit_at"]), '
        'else_=moved("at_until", t["next_submit_at"].type))},',
        killers=("interleavings: sqlite submitted submitted", _OFF),
    ),
    Mutant(
        name="the claim of a poll does not move its time",
        why="no task is asked about twice at once",
        file=_STATEMENTS,
        old='changes={"next_poll_at": _next_poll(t, options), "polls": t["polls"] + 1},',
        new='changes={"next_poll_at": sa.case((sa.true(), t["next_poll_at"]), else_=_next_poll(t, options))},',
        killers=(_OFF,),
    ),
    Mutant(
        name="the claim of a delivery does not move its time",
        why="a delivery is tried by one worker",
        file=_INBOX,
        old='            (d["next_retry_at"], at_until),\n            (d["claimed_until"], at_until),\n        )',
        new='            (d["next_retry_at"], d["next_retry_at"]),\n'
        '            (d["claimed_until"], at_until),\n'
        "        )",
        killers=("the inbox",),
    ),
    Mutant(
        name="a delivery that kills its workers is tried for ever",
        why="an event's own trouble is its own",
        file=_INBOX,
        old='(d["tries"], sa.case((was_lost, d["tries"] + 1), else_=d["tries"])),',
        new='(d["tries"], sa.case((was_lost, d["tries"]), else_=d["tries"])),',
        killers=("tests/integration/test_inbox.py",),
    ),
    Mutant(
        name="a settled delivery is settled again",
        why="exactly-once effect",
        file="storage/store.py",
        old="        if not self.update_delivery(tx, delivery_id, values):\n            raise AlreadySettled",
        new="        self.update_delivery(tx, delivery_id, values)",
        killers=("tests/integration/test_retries.py",),
    ),
    Mutant(
        name="the digest is ignored",
        why="one signed message, one effect",
        file=_APPLY,
        old="digest = None if attempt_tells else received.digest",
        new="digest = None",
        killers=(_SIGNED,),
    ),
    Mutant(
        name="a purge forgets what could come again",
        why="what is purged is remembered for as long as a repeat could have an effect",
        file="operations/retention.py",
        old="        delivery.scheme.is_not(None),\n",
        new="        sa.false(),\n",
        killers=("a purge, signed bodies",),
    ),
    # --- the transaction ---
    Mutant(
        name="the commit stands before the handlers",
        why="exactly-once effect: one transaction",
        file=_APPLY,
        old="            if decision.verdict is Verdict.PROCESSED:\n                self._queue_forwards",
        new=(
            "            self._commit()\n            if decision.verdict is Verdict.PROCESSED:\n"
            "                self._queue_forwards"
        ),
        killers=("failing handlers",),
    ),
    Mutant(
        name="nothing is committed before the answer 202",
        why="acknowledged means durable",
        file="storage/transactions.py",
        old="            return self._commit(work)\n        make_room",
        new="            with self.transaction() as t:\n                return work(t.connection)\n        make_room",
        killers=("the inbox",),
    ),
    Mutant(
        name="NOTIFY stands before the COMMIT",
        why="an accepted event is applied soon",
        file="engine/accept.py",
        old="    if rows:\n        state.store.inbox.notify(tx)",
        new="    if rows:\n        state.database.write_one(lambda other: state.store.inbox.notify(other))",
        killers=("tests/integration/test_inbox.py::test_no_worker_is_woken_before_it_can_see_the_event",),
    ),
    Mutant(
        name="a failed handler is not tried again",
        why="a failed handler loses nothing",
        file=_FAILURES,
        old='"next_retry_at": now + jittered(backoff[tries - 1])}',
        new='"next_retry_at": None}',
        killers=("failing handlers",),
    ),
    Mutant(
        name="a failed handler is parked at once",
        why="it is retried after 30, 60 and 120 s",
        file=_FAILURES,
        old="    if tries > len(backoff):",
        new="    if tries:",
        killers=("failing handlers",),
    ),
    Mutant(
        name="a refusal is swallowed",
        why="the host is told what its task's state does not allow",
        file=_APPLY,
        old="        if decision.refused:\n            raise TransitionRefused(decision.reason)",
        new="        if decision.refused:\n            pass",
        killers=("tests/integration/submission/test_retry_and_cancel.py",),
    ),
    # --- never pay twice ---
    Mutant(
        name="a call is not recorded before it is made",
        why="never pay twice",
        file=_STORE,
        old='values = {"submitting_since": now, "creator_address": address, "updated_at": now}',
        new='values = {"submitting_since": None, "creator_address": address, "updated_at": now}',
        killers=(_OFF,),
    ),
    Mutant(
        name="an interrupted submission is not looked for",
        why="never pay twice",
        file=_HANDOVER,
        old="    if not creator.is_idempotent:\n        settled = _look_for_it(state, task)",
        new="    if creator.is_idempotent:\n        settled = _look_for_it(state, task)",
        killers=(_OFF,),
    ),
    Mutant(
        name="what cannot be found is submitted again",
        why="nothing is submitted again while the first job may live",
        file=_HANDOVER,
        old="    if was_interrupted and cannot_tell:",
        new="    if was_interrupted and not cannot_tell:",
        killers=(_OFF,),
    ),
    Mutant(
        name="the job of the attempt before is not stopped",
        why="at most one job may be alive",
        file=_HANDOVER,
        old="    if names and not stop_strays(state, task, names):",
        new="    if names and not task:",
        killers=(_AGAIN,),
    ),
    Mutant(
        name="the names of earlier attempts are forgotten",
        why="at most one job may be alive",
        file=_CHANGES,
        old="        earlier = [*earlier, name][-_MOST_EARLIER_NAMES:]",
        new="        earlier = [*earlier][-_MOST_EARLIER_NAMES:]",
        killers=(_AGAIN,),
    ),
    Mutant(
        name="a name that was never confirmed is asked about",
        why='"I do not know it" counts only for a name that the service has confirmed',
        file=_RECONCILE,
        old="        and (is_confirmed or service.can_find)",
        new="        and (is_confirmed or service is not None)",
        killers=("no answer, until a second attempt",),
    ),
    Mutant(
        name="a lease is not renewed",
        why="a lease is renewed while its work goes on",
        file="runtime/leases.py",
        old="            lease.has_ended = not lease.renew()",
        new="            lease.has_ended = lease.renew is None",
        killers=("tests/unit/test_leases.py",),
    ),
    Mutant(
        name="a lease has no length",
        why="never pay twice",
        file=_CHANGES,
        old="settings.creator_submit_wait + 2 * settings.creator_timeout) + _LEASE_MARGIN",
        new="settings.creator_submit_wait * 0) + 0 * _LEASE_MARGIN",
        killers=(_OFF,),
    ),
    Mutant(
        name="a job is forgotten although the service was not told",
        why="no job may be alive that no open task owns",
        file=_STRAYS,
        old="    if current and all(told):",
        new="    if current:",
        killers=(_CUT,),
    ),
    Mutant(
        name="a cancelled task is not due until the service was told",
        why="no job may be alive that no open task owns",
        file=_APPLY,
        old="                values |= until_told(self.trigger, seen, settings, self.now)",
        new="                values |= {}",
        killers=(_CUT,),
    ),
    Mutant(
        name="after a gateway's answer nothing is looked for",
        why="never pay twice",
        file=_STORE,
        old="        if not may_have_arrived:",
        new="        if task:",
        killers=("a gateway, a service away, names that are found",),
    ),
    # --- time ---
    Mutant(
        name="a task is given up before its deadline",
        why="deadlines",
        file=_RECONCILE,
        old="given_up = [task for task in unsettled if not has_time_left(task, self.state.settings, self.now)]",
        new="given_up = list(unsettled)",
        killers=("no answer, and the time is not over",),
    ),
    Mutant(
        name="a job that is missing once is lost",
        why="404 counts after three times",
        file=_RECONCILE,
        old="_MISSING_LIMIT = 3",
        new="_MISSING_LIMIT = 1",
        killers=("tests/integration/test_reconcile.py::TestMissing",),
    ),
    # --- who speaks ---
    Mutant(
        name="any token is right",
        why="fail closed",
        file="core/signature_schemes.py",
        old="token.isascii() and hmac.compare_digest(sign_url(secret, task_id, attempt, sender), token)",
        new="bool(token)",
        killers=("forged, changed, in progress",),
    ),
    Mutant(
        name="a refused request can be replayed",
        why="fail closed",
        file="engine/restore.py",
        old='    if row["verdict"] == Verdict.REJECTED and row["scheme"] is None:',
        new='    if row["verdict"] == Verdict.REJECTED and row["scheme"] == "":',
        killers=("tests/integration/test_retries.py::test_what_nobody_vouched_for_cannot_be_replayed",),
    ),
    Mutant(
        name="a retry does not wait for a job that cannot be found",
        why="never pay twice",
        file=_STRAYS,
        old="    if trigger is not Trigger.RETRY or task",
        new="    if trigger or task",
        killers=("another attempt of the host's, foreign names",),
    ),
)
