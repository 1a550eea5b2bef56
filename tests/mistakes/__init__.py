"""Mistakes as an engineer makes them, planted one at a time in a copy of the source to see whether the tests notice.

The lists are `*.toml` beside this file, one for each package; `python -m tests.mistakes --help` says how they are planted.
"""
