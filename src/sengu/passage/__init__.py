"""The passage: how connections get from the sockets that one generation has bound by itself to
those of the next (SO_REUSEPORT, socket(7)), with none of them lost.

`passage` follows the planner, a `crossing` is one address, `group` looks at who listens, `ladder`
chooses a technique by trying. `by_socket`, `by_index` and `by_member` steer, `removal` takes
sockets of ours out of a group, `relay` serves what has reached one. Imported by the server only.
"""
