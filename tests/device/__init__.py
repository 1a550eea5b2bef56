"""Rehearsals of devices that are not here: a GPU that is pretended on the CPU."""
