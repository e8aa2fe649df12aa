"""The server: the shell around the planner. One process, one thread, one loop; never any user code.

Where to look: `instance` wires the parts, `core` takes facts in and `execute` carries actions out.
`link`, `children` and `beat` are the supervisor as the server knows it; `memory`, `adopt` and
`upgrade` lead from one server to the next; `crew` has the workers, and `forkservers` those who make
them. docs/design.md has the whole map.
"""
