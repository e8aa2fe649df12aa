"""A shop in FastAPI. See test_serve_frameworks.py."""

from urllib.parse import parse_qs

from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import BaseModel

from tests.system.apps.pieces import TYPE, pieces


class Numbers(BaseModel):
    numbers: list[int]


app = FastAPI()


@app.get("/hello/{name}", response_class=PlainTextResponse)
async def hello(name: str) -> str:
    return f"hello {name}"


@app.post("/sum")
def add(order: Numbers) -> dict[str, int]:
    return {"sum": sum(order.numbers)}


@app.post("/form", response_class=PlainTextResponse)
async def form(request: Request) -> str:
    # FastAPI's own forms need another package.
    return parse_qs((await request.body()).decode())["name"][0]


@app.get("/pieces")
def stream(gate: str) -> StreamingResponse:
    return StreamingResponse(pieces(gate), media_type=TYPE)


@app.get("/where", response_class=PlainTextResponse)
async def where(request: Request) -> str:
    client = request.client.host if request.client else "nobody"
    return f"{request.url} from {client}"


@app.get("/error")
async def error() -> None:
    raise RuntimeError("out of stock")


@app.websocket("/echo")
async def echo(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(f"echo {text}")
