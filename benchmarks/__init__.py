"""How fast the extension is, as ratios against what could be written by hand: ``python -m benchmarks --help``."""
