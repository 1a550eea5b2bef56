"""Reading runs: one record of a run, the record of a sweep, selecting, grouping by seed, comparing, and the registry of metrics.

Imports no torch.
"""
