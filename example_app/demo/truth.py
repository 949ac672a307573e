"""The second act's checks: our database against the creator's own books, which know nothing of what reached us."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from example_app.demo.checks import Check, effects
from example_app.demo.fates import Fate
from flask_contenthub_webhook.testing import FORGED_CONTENT, CreatorSimulator, TaskRecord


def loop_checks(fates: Sequence[Fate], creator: CreatorSimulator) -> Iterator[Check]:
    """Compare what became of every task with what the creator did."""
    tasks, refused = creator.tasks, set(creator.refused)
    wrong = [
        f"{fate.order.part.name} is {fate.status}, not {true}"
        for fate in fates
        if fate.status != (true := true_state(fate, tasks, refused))
    ]
    yield Check(
        "Every task stands where the creator's own books say",
        f"{len(fates)} tasks, {len(wrong)} differ{_list(wrong)}",
        not wrong,
    )
    yield from effects([fate.order.task_id for fate in fates])
    forged = [record for record in creator.callbacks if record.forged]
    believed = sum(record.delivered for record in forged)
    foreign = [fate for fate in fates if not _is_genuine(fate, tasks)]
    yield Check(
        "No forged callback was believed, and every content is the creator's own",
        f"{len(forged)} tried, {believed} believed, {len(foreign)} foreign contents",
        bool(forged) and not believed and not foreign,
    )
    unclear = [fate.order.part.name for fate in fates if len(fate.settling) != 1]
    settled = Counter(fate.settled_by for fate in fates if fate.settled_by)
    yield Check(
        "Every task was settled once, and the history says by what",
        f"{', '.join(f'{who} {number}' for who, number in settled.most_common())}{_list(unclear)}",
        not unclear,
    )
    handed, stored = creator.requests["POST /api/tasks"], len(tasks) + len(refused)
    yield Check(
        "No attempt was handed over twice",
        f"{handed} submissions, {stored} attempts, {creator.deaths} crash",
        handed == stored and creator.deaths == 1,
    )


def true_state(fate: Fate, tasks: dict[str, TaskRecord], refused: set[str]) -> str:
    """Where a task must stand, whatever reached us: one completed attempt is enough, and what died stays undone."""
    known = [tasks[name] for name in fate.creator_ids if name in tasks]
    if any(record.state == "completed" for record in known):
        return "completed"
    if fate.creator_ids[-1] in refused:
        return "failed"
    if not known or known[-1].id != fate.creator_ids[-1]:
        return "pending"
    if known[-1].state == "failed":
        return "failed"
    return "timeout" if known[-1].orphaned else "submitted"


def _is_genuine(fate: Fate, tasks: dict[str, TaskRecord]) -> bool:
    known = [tasks[name] for name in fate.creator_ids if name in tasks]
    written = {result["content"] for record in known for result in (record.result, record.other_result) if result}
    return all(body in written and body != FORGED_CONTENT for _, body in fate.contents)


def _list(names: Sequence[str]) -> str:
    return f": {', '.join(names)}" if names else ""
