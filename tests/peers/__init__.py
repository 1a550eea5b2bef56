"""Second opinions: parts of the program against packages of other people, or against the paper written down plainly.

A module here compares one part with one peer, on random and on extreme inputs, a test id each. A peer that the program itself does
not need comes from the dependency group `peers`, and is asked for with `tests.peers.packages.peer`, which skips the module where it
is not installed. Where no package does the same, a reference in NumPy and float64 is written in the test from the paper's formula,
and never with a function of the program.
"""
