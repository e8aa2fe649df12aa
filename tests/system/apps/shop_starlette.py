"""A shop in Starlette. See test_serve_frameworks.py."""

from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from tests.system.apps.pieces import TYPE, pieces


async def hello(request: Request) -> Response:
    return PlainTextResponse(f"hello {request.path_params['name']}")


async def add(request: Request) -> Response:
    return JSONResponse({"sum": sum((await request.json())["numbers"])})


async def form(request: Request) -> Response:
    # Starlette's own forms need another package.
    return PlainTextResponse(parse_qs((await request.body()).decode())["name"][0])


async def stream(request: Request) -> Response:
    return StreamingResponse(pieces(request.query_params["gate"]), media_type=TYPE)


async def where(request: Request) -> Response:
    client = request.client.host if request.client else "nobody"
    return PlainTextResponse(f"{request.url} from {client}")


async def error(_request: Request) -> Response:
    raise RuntimeError("out of stock")


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(f"echo {text}")


app = Starlette(
    routes=[
        Route("/hello/{name}", hello),
        Route("/sum", add, methods=["POST"]),
        Route("/form", form, methods=["POST"]),
        Route("/pieces", stream),
        Route("/where", where),
        Route("/error", error),
        WebSocketRoute("/echo", echo),
    ]
)
