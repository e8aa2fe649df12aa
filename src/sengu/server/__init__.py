"""The shell around the planner: waits, turns what happened into facts, carries actions out.

One thread, one loop, no user code. What must outlive this process one day, listeners, lifeline and
the table of workers, sits in objects of its own (`Listeners`, `Crew`) behind narrow ports.
"""
