"""Pure rules: events, the state machine, signatures, filters, redaction. No Flask, no SQL, no clock, no I/O.

Everything may import this package; it imports only :mod:`..errors`.
"""
