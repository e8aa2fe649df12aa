"""ASGI 3: uvicorn's protocols with a life of ours around them, so that a deploy loses nothing.

`engine` is what `sengu.http.engine` uses; it imports the rest when an application turns out to be
one of ASGI, because the rest needs the packages of the extra `asgi`. What uvicorn has is used
(parsing, the ASGI messages of HTTP and websockets, flow control); its server, its configuration of
processes and its logging are not.
"""
