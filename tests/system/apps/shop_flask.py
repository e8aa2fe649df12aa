"""A shop in Flask. All shops answer the same requests; see test_serve_frameworks.py."""

from flask import Flask, Response, request

from tests.system.apps.pieces import TYPE, pieces

app = Flask(__name__)


@app.get("/hello/<name>")
def hello(name: str) -> Response:
    return Response(f"hello {name}", content_type=TYPE)


@app.post("/sum")
def add() -> dict[str, int]:
    return {"sum": sum(request.get_json()["numbers"])}


@app.post("/form")
def form() -> Response:
    return Response(request.form["name"], content_type=TYPE)


@app.get("/pieces")
def stream() -> Response:
    return Response(pieces(request.args["gate"]), content_type=TYPE)


@app.get("/where")
def where() -> Response:
    return Response(f"{request.url} from {request.remote_addr}", content_type=TYPE)


@app.get("/error")
def error() -> Response:
    raise RuntimeError("out of stock")
