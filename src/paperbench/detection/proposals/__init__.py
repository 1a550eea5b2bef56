"""Precomputed boxes in which an object may lie: found by selective search, read from a file, or made by a trained network."""
