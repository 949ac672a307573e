"""`make demo`: the real server, the real requests of the real sender, and what became of each."""
