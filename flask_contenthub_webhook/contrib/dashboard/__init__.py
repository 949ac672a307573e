"""History pages: deliveries, tasks and forwards, and replays."""

from __future__ import annotations

from .mounting import create_dashboard

__all__ = ["create_dashboard"]
