"""The command line: one file per verb. May import anything; nobody imports it.

All verbs but `start` and `demo` are clients of the control API and nothing more.
"""
