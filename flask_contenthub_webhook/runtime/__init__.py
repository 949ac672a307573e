"""The memory of one process of one application: its state object, background threads, limits and breakers.

Forwarding and everything above it may import this package. Nothing in it is needed for correctness: a process that dies
loses only this.
"""
