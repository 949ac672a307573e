"""The creator of the second act: the simulator on loopback, whose faults follow a script instead of chance."""

from __future__ import annotations

from dataclasses import dataclass, field

from flask_contenthub_webhook.testing import CreatorSimulator, Faults, TaskFaults

WORK_TIME = (0.3, 1.5)
LATE = 4.0
"""Seconds by which a delayed callback is late: longer than our poller's patience."""
AWAY_FOR = 1.5
"""Seconds until somebody starts the creator again after its crash."""


@dataclass(frozen=True, kw_only=True)
class Script(Faults):
    """What goes wrong by the id of an attempt; with what is not in the script, nothing does."""

    plans: dict[str, TaskFaults] = field(default_factory=dict)

    def of(self, seed: int, task_id: str) -> TaskFaults:  # noqa: ARG002 - nothing is drawn
        return self.plans.get(task_id, TaskFaults())


def new_creator(script: dict[str, TaskFaults]) -> CreatorSimulator:
    """A creator, not started yet. Its own seconds are shorter than the real one's: nobody wants to wait for those."""
    faults = Script(plans=script, delay_by=LATE, contradict_after=1.5)
    return CreatorSimulator(faults=faults, work_time=WORK_TIME, time_scale=0.1, callback_timeout=10, keep_bodies=False)
