"""The log writer: one process that appends what it is given to a file, and rotates that.

Small and on its own: standard library only. Run by `server.log` as `python -m sengu.logwriter`;
cli imports `archives`, to read what was rotated.
"""
