"""Passes events on to other URLs: write the forwards, send them, check the addresses, replay them.

Engine and everything above it may import this package; it imports runtime and what is below.
"""
