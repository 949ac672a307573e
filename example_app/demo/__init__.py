"""`make demo`: real callbacks at a real server, then the whole loop with a simulated creator that misbehaves."""
