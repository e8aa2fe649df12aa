"""A shop in Bottle. See test_serve_frameworks.py."""

from collections.abc import Iterator

from bottle import Bottle, request, response  # type: ignore[import-untyped]

from tests.system.apps.pieces import TYPE, pieces


def hello(name: str) -> str:
    response.content_type = TYPE
    return f"hello {name}"


def add() -> dict[str, int]:
    return {"sum": sum(request.json["numbers"])}


def form() -> str:
    response.content_type = TYPE
    return str(request.forms.name)


def stream() -> Iterator[bytes]:
    response.content_type = TYPE
    return pieces(str(request.query["gate"]))


def where() -> str:
    response.content_type = TYPE
    return f"{request.url} from {request.remote_addr}"


def error() -> str:
    raise RuntimeError("out of stock")


app = Bottle()
app.get("/hello/<name>", callback=hello)
app.post("/sum", callback=add)
app.post("/form", callback=form)
app.get("/pieces", callback=stream)
app.get("/where", callback=where)
app.get("/error", callback=error)
