"""History pages: what came, what became of it, and how to replay it."""

from __future__ import annotations

from .mounting import create_dashboard

__all__ = ["create_dashboard"]
