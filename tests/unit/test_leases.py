"""Leases are renewed while their work goes on, and not after it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import timedelta

from flask_contenthub_webhook.runtime.leases import renewed
from tests.support.processes import wait_until

OFTEN = timedelta(milliseconds=5)


class Counted:
    """Counts renewals, and does what it is told at each."""

    def __init__(self, act: Callable[[int], bool] = lambda _: True) -> None:
        self.count = 0
        self._act = act

    def __call__(self) -> bool:
        self.count += 1
        return self._act(self.count)

    def wait_for(self, count: int) -> None:
        wait_until(lambda: self.count >= count, timeout=10, what=f"{count} renewals", log=str)


def test_a_lease_is_renewed_again_and_again():
    lease = Counted()
    with renewed(lease, every=OFTEN):
        lease.wait_for(5)


def test_it_is_not_renewed_after_its_work():
    ended, other = Counted(), Counted()
    with renewed(ended, every=OFTEN):
        ended.wait_for(1)
    count = ended.count
    with renewed(other, every=OFTEN):
        other.wait_for(5)
    assert ended.count == count


def test_the_work_ends_only_after_a_renewal_that_is_under_way():
    begun, release, over = threading.Event(), threading.Event(), threading.Event()

    def slowly(_: int) -> bool:
        begun.set()
        assert release.wait(10)
        return True

    def work() -> None:
        with renewed(Counted(slowly), every=OFTEN):
            assert begun.wait(10)
        over.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(10)
    assert not over.wait(0.05)
    release.set()
    thread.join(10)
    assert over.is_set()


def test_a_lost_lease_is_given_up_and_one_that_raises_is_not():
    lost, failing = Counted(lambda _: False), Counted(lambda count: bool(1 / (count - 1)))
    with renewed(lost, every=OFTEN), renewed(failing, every=OFTEN):
        failing.wait_for(5)
    assert lost.count == 1


def test_one_that_is_due_soon_does_not_wait_for_one_that_is_not():
    slow, fast = Counted(), Counted()
    with renewed(slow, every=timedelta(hours=1)), renewed(fast, every=OFTEN):
        fast.wait_for(3)
    assert slow.count == 0


def test_a_forked_child_renews_its_own_and_not_those_of_its_parent():
    ours = Counted()
    with renewed(ours, every=OFTEN):
        ours.wait_for(1)
        child = os.fork()
        if child == 0:
            inherited, theirs = ours.count, Counted()
            with renewed(theirs, every=OFTEN):
                theirs.wait_for(3)
            os._exit(0 if ours.count == inherited else 1)
        assert os.waitpid(child, 0)[1] == 0
