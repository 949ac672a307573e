"""The tables: tasks, deliveries, forwards and alerts, as mixins for a host's models and as default models.

Storage and everything above it may import this package; it imports core.
"""
