"""A WSGI application that needs nothing: change the greeting, and deploy."""

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

GREETING = "hello"


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/slow":  # to see that a deploy waits for whoever is being served
        time.sleep(2)
    scheme, client = environ["wsgi.url_scheme"], environ["REMOTE_ADDR"]
    body = f"{GREETING} from process {os.getpid()} to {client} by {scheme}\n"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]
