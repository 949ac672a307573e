"""The soak: thousands of tasks through a creator that loses, repeats, delays, contradicts and dies, and a forger.

Meanwhile a gunicorn worker is killed, the creator dies with its queue, and then the whole host is killed and comes
back. In the end the books are balanced, task by task, against the truth of the creator.

What the truth is. The creator knows attempts, each under an id of its own, and its API never lies about one: where its
callbacks contradict each other (``failed``, and then ``completed``), its row says ``completed``. The host knows tasks.
So:

- A task is ``completed`` if the creator completed any attempt of it, also one that a ``failed`` callback had made the
  host give up before; nothing that comes later takes that back.
- It is ``failed`` if no attempt was completed, and either the last allowed one ended without success, or the creator
  refused the job as invalid (400), which another attempt would only repeat. Without success means: the creator says
  ``failed`` (also of what its restart interrupted), or it does not have the attempt at all (its connections were cut
  while the submission was under way, and three answers in a row do not know it).
- Anything else would be a task that the host gave up although it should not have, or one that it forgot.

The effect is one row in ``contents`` for each completed task, with a content that the creator wrote for one of its
attempts, and none for others. The history explains a task where the last ``processed`` delivery leads to its state, and
came as a callback, by polling, or as the answer to the submission.

One case is left open. The creator says ``failed`` of an attempt that it completed, and the ``completed`` that is to
follow dies with its queue, or is dropped after four tries while the host is away. Nobody asks about that attempt again,
so such a task may be ``completed`` or go by its other attempts; the figures count them as "misled for good".

``SOAK_TASKS=2000 python -m pytest tests/chaos/test_soak.py -rP`` is the full run; without it, a small one of the same
kind. ``SOAK_RATE`` is the number of tasks in a second, ``SOAK_SEED`` the seed of the creator's faults.
"""

from __future__ import annotations

import os
import random
import time

import pytest

from tests.chaos.soak import balance, installation, submit_all, wait_until_settled
from tests.support.audited import findings_in
from tests.support.web_server import figure

FULL = 1_000
TASKS = int(os.environ.get("SOAK_TASKS", "150"))
PER_SECOND = float(os.environ.get("SOAK_RATE", "25"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_every_task_ends_as_the_creators_truth_says(database_url, tmp_path):
    seed = int(os.environ.get("SOAK_SEED", random.randrange(2**31)))
    # What a killed process had claimed for submission is due again after half a minute; only the full run has the time.
    hurry = {} if TASKS >= FULL else {"TEST_SOAK_LEASE_MARGIN": "3"}
    with installation(database_url, tmp_path, TASKS, seed=seed, **hurry) as site:
        began = time.monotonic()
        accidents = {0.35: site.kill_worker, 0.5: site.kill_creator, 0.65: site.kill_host}
        at = {int(TASKS * when): accident for when, accident in accidents.items()}
        submit_all(site, TASKS, per_second=PER_SECOND, at=at)
        site.note(f"{TASKS} tasks were submitted")
        wait_until_settled(site, timeout=300)
        took = time.monotonic() - began
        codes = site.end_schedulers()
        books = balance(site)

    figure("\n".join([f"seed {seed}, {took:.1f} s", *site.events, books.show()]))
    assert books.figures["tasks"] == TASKS
    assert len(site.creator.death_reasons) == 1
    assert findings_in(database_url) == []
    assert not books.problems, "\n".join([f"{len(books.problems)} problems; the first:", *books.problems[:20]])
    assert codes == [0, 0]
