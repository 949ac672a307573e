"""Receives requests: the routes, the guards before them in their order, and the answers.

Only the extension and the outer ring may import this package; it hands every believed event to the engine.
"""
