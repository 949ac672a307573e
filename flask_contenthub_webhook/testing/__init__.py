"""What hosts and this project's own tests test against: a creator on loopback that behaves as the real one does."""

from __future__ import annotations

from .article import FORGED_CONTENT
from .faults import Contradiction, Faults, Forgery, TaskFaults
from .ledger import CallbackRecord, Ledger, TaskRecord, read_ledger
from .simulator import CreatorSimulator, run_simulator

__all__ = [
    "FORGED_CONTENT",
    "CallbackRecord",
    "Contradiction",
    "CreatorSimulator",
    "Faults",
    "Forgery",
    "Ledger",
    "TaskFaults",
    "TaskRecord",
    "read_ledger",
    "run_simulator",
]
