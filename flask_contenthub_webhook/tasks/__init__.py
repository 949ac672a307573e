"""Asks the creator: submit, hand over, reconcile, and the events that a creator's answers become.

Operations, the extension and the outer ring may import this package; it hands every event to the engine.
"""
