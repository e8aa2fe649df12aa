"""Where a Python process is: its threads, its tasks, its memory, as text; asked for by CONT.

Imported by server, fork servers and workers. Nothing here knows who they are.
"""
