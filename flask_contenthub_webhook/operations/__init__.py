"""Looks after an installation: the scheduler's jobs, alerts, retention and purge.

Only the extension and the outer ring may import this package.
"""
