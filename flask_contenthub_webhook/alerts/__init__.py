"""Alerts: computed from the database, so that they are the same on every worker, and raised once."""
