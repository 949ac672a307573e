"""Applies events: the transaction with its handlers and its COMMIT, failures and tries, the inbox's workers, replay.

Tasks, web, operations and the outer ring may import this package; it imports forwarding, runtime and what is below.
"""
