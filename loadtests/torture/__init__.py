"""Faults, injected into a real installation under load, and what became of each acknowledged operation.

`python -m loadtests.torture`, or `make torture`, writes docs/reliability.md.
"""
