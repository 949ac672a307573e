"""All SQL: transactions, the statements of the exactly-once rule, the inbox, the outboxes, and the read-only queries.

The packages from creators up may import this package; it imports models, config and core, and knows no Flask request.
"""
