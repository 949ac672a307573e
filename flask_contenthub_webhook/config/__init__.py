"""The configuration: the table of keys, the parsers of their values, and the frozen settings made from them.

Storage and everything above it may import this package; it imports core.
"""
