"""Real servers for the tests: nothing here knows what is tested."""
