"""Hooks: functions of the application's module, or of `--hooks`, that are told of a worker's life.

| name | where | argument |
|---|---|---|
| `before_fork(worker)` | fork server | who is to be forked; `pid` is 0 |
| `after_fork(worker)` | worker, before it is ready | itself |
| `worker_ready(worker)` | worker, when it is ready | itself |
| `request_timeout(worker, request)` | worker, a thread beside | itself; method and path |
| `worker_exit(worker)` | worker, when it has drained | itself |
"""

import sys
import traceback
from collections.abc import Callable
from typing import Any

from sengu.worker.identity import Identity


class Hooks:
    """The hooks that `module` has. An exception in one is the caller's, but for the last two."""

    def __init__(self, module: object) -> None:
        self._module = module

    def before_fork(self, worker: Identity) -> None:
        self._find("before_fork")(worker)

    def after_fork(self, worker: Identity) -> None:
        self._find("after_fork")(worker)

    def worker_ready(self, worker: Identity) -> None:
        self._find("worker_ready")(worker)

    def request_timeout(self, worker: Identity, request: str) -> None:
        self._try("request_timeout", worker, request)

    def worker_exit(self, worker: Identity) -> None:
        self._try("worker_exit", worker)

    def _find(self, name: str) -> Callable[..., Any]:
        hook = getattr(self._module, name, None)
        return hook if callable(hook) else _nothing

    def _try(self, name: str, *arguments: object) -> None:
        try:
            self._find(name)(*arguments)
        except Exception:  # it is the user's; the worker ends anyway, and what it says is shown
            print(f"sengu: the hook {name} failed:", file=sys.stderr)
            traceback.print_exc()


def _nothing(*_arguments: object) -> None:
    """There is no such hook."""
