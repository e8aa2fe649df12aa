"""FastAPI, with something that is opened in each worker before it is ready, and closed at its end.

What is opened when the module is imported would be shared by all workers.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, WebSocket
from fastapi.responses import PlainTextResponse


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    print(f"process {os.getpid()} opens its connections")
    yield
    print(f"process {os.getpid()} closes them")


app = FastAPI(lifespan=lifespan)


@app.get("/", response_class=PlainTextResponse)
async def hello() -> str:
    return f"hello from process {os.getpid()}\n"


@app.websocket("/echo")
async def echo(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(f"echo {text}")
