"""The promises, proved by enumeration on the code that ships; ``make proof`` runs all of it, the tests a slice."""
