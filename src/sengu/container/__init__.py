"""The runner: the process of a worker that is a container. It starts it, follows it, removes it.

Standard library only, and little of it, for there is one beside each container. Nobody imports
this; the server executes it (`server.containers`).
"""
