"""A shop in Litestar. See test_serve_frameworks.py."""

from typing import Any

from litestar import Litestar, MediaType, Request, get, post, websocket_listener
from litestar.logging import LoggingConfig
from litestar.params import FromPath, FromQuery, JSONBody, URLEncodedBody
from litestar.response import Stream

from tests.system.apps.pieces import TYPE, pieces


@get("/hello/{name:str}", media_type=MediaType.TEXT)
async def hello(name: FromPath[str]) -> str:
    return f"hello {name}"


@post("/sum", status_code=200)
async def add(data: JSONBody[dict[str, list[int]]]) -> dict[str, int]:
    return {"sum": sum(data["numbers"])}


@post("/form", status_code=200, media_type=MediaType.TEXT)
async def form(data: URLEncodedBody[dict[str, str]]) -> str:
    return data["name"]


@get("/pieces")
async def stream(gate: FromQuery[str]) -> Stream:
    return Stream(pieces(gate), media_type=TYPE)


@get("/where", media_type=MediaType.TEXT)
async def where(request: Request[Any, Any, Any]) -> str:
    client = request.client.host if request.client else "nobody"
    return f"{request.url} from {client}"


@get("/error")
async def error() -> None:
    raise RuntimeError("out of stock")


@websocket_listener("/echo")
async def echo(data: str) -> str:
    return f"echo {data}"


app = Litestar(
    [hello, add, form, stream, where, error, echo],
    logging_config=LoggingConfig(log_exceptions="always"),
)
