"""The one module that reads clocks. Everything else is given the time as an argument.

Its functions are the standard library's own: one is called for each request.
"""

import time

# Seconds since some fixed moment; what all deadlines are counted in.
monotonic = time.monotonic

# Seconds since 1970, for people.
wall = time.time
