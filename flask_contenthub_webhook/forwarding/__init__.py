"""Sending events on: which go where, the outbox that keeps them, and the requests that carry them."""
