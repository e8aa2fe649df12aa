"""Web applications in a worker: HTTP/1.1, WSGI, and what both interfaces share.

`engine` is what the fork server loads. Lives in the worker's process; imported by the fork server
by name only, and never by the server.
"""
