"""The fork server: a fresh interpreter for each generation, which loads the application once and
forks workers that share its memory.

One thread, no loop but its own, and never more than one batch of births in hand. The server talks
to it over a socket pair; when that is closed it ends.
"""
