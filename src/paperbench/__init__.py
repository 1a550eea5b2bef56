"""Run landmark deep-learning papers and hold every measured number against the one the paper printed."""

__version__ = "0.1.0"
