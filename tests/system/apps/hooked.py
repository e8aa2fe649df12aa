"""Has all five hooks; each says in which process it runs. An application, too."""

import os
from typing import Any

from plain import app  # type: ignore[import-not-found]

__all__ = ["app"]


def tell(hook: str, worker: Any, more: str = "") -> None:
    who = f"{worker.service} worker {worker.slot} gen {worker.generation} pid {worker.pid}"
    print(f"hook {hook} of {who} in {os.getpid()}{more}")


def before_fork(worker: Any) -> None:
    tell("before_fork", worker)


def after_fork(worker: Any) -> None:
    tell("after_fork", worker)


def worker_ready(worker: Any) -> None:
    tell("worker_ready", worker)


def request_timeout(worker: Any, request: str) -> None:
    tell("request_timeout", worker, f" on {request}")


def worker_exit(worker: Any) -> None:
    tell("worker_exit", worker)
