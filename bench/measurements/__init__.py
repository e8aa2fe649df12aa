"""What is measured: a module for each measurement, found by `bench.registry`.

A module holds `MEASUREMENT`, a `bench.registry.Measurement`. To add one, add a file.
"""
