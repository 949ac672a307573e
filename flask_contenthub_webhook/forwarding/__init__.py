"""Sending events on: several callback URLs, from an outbox, with guards against what a URL may lead to."""
