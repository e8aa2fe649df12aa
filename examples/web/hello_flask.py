"""Flask, with the factory that its documentation recommends."""

import os

from flask import Flask, Response


def create_app() -> Flask:
    app = Flask(__name__)

    @app.get("/")
    def hello() -> Response:
        return Response(f"hello from process {os.getpid()}\n", content_type="text/plain")

    return app
