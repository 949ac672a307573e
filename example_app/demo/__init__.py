"""`make demo`: the real server, the real requests of the real sender, a whole creator, and what became of each task."""
