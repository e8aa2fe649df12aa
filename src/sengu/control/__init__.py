"""The control API: HTTP and JSON over a UNIX socket, its server side and its client.

The server side (`listener`, `connection`, `routes`) runs in the server's loop; `client` belongs to
the command line. `api` is what both speak.
"""
