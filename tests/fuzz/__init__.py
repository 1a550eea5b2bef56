"""Damaged input, made from sound input by a seed: every reader refuses it in words, or reads it without losing anything unsaid.

`damage` has the functions that damage bytes, text, numbers and structures; a target (`targets.Target`) makes one input of a format
and reads it; `runs.fuzz` counts what became of many. `python -m tests.fuzz --count N` is the long run.
"""
