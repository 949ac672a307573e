"""Optional parts of the extension, each with its own extra: Celery, Prometheus, the history pages."""
