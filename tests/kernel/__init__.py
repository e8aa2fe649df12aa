"""One module of system calls at a time, against the real kernel."""
