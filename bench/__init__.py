"""Measures sengu beside the programs that it replaces, in one run on one machine.

`python -m bench` runs every module of `bench.measurements`, keeps what it found in
docs/benchmarks.json, and writes docs/benchmarks.md and its plots from that. Nothing of sengu is
imported: it is driven as a person would drive it, by its command line and its control socket.
"""
