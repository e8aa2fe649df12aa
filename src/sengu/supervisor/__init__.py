"""The supervisor: the main process, which outlives the server and holds all that must outlive it.

It is the one file `main.py`, run by its path (`python -I -S PATH`), and imports nothing of ours, so
that it goes on while the package around it is replaced. Nobody imports it; what the server says to
it and hears from it is in `sengu.wire.supervisor`.
"""
