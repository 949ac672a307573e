"""The kit for hosts' tests, and a creator on loopback that behaves as the real one does."""

from __future__ import annotations

from .article import FORGED_CONTENT
from .callbacks import CallbackSender
from .clock import MovableClock
from .faults import Contradiction, Faults, Forgery, TaskFaults
from .ledger import CallbackRecord, Ledger, TaskRecord, read_ledger
from .live import LiveApp
from .recorder import RecordedSignal, SignalRecorder
from .simulator import CreatorSimulator, run_simulator

__all__ = [
    "FORGED_CONTENT",
    "CallbackRecord",
    "CallbackSender",
    "Contradiction",
    "CreatorSimulator",
    "Faults",
    "Forgery",
    "Ledger",
    "LiveApp",
    "MovableClock",
    "RecordedSignal",
    "SignalRecorder",
    "TaskFaults",
    "TaskRecord",
    "read_ledger",
    "run_simulator",
]
