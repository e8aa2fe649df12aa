"""Kills a server at one step. Python imports this at its start when its directory is in PYTHONPATH.

So there is nothing for tests in the program itself, and each call of a function can be such a step.
A fault is a line of SENGU_FAULTS: `WHEN MODULE:FUNCTION ARGUMENT COUNT`, as in `after
sengu.server.journal:Journal.write WorkerExited 1`. The server dies before or after the COUNT-th
call with that argument (its type, or what it begins with; `-` is any). It does so when there is a
file of the fault's name in the directory SENGU_FAULTS_ARMED, and removes that first: so calls
are counted from when the file is made, and the next server lives. A line of SENGU_SETTINGS,
`MODULE:NAME NUMBER`, is a constant of the program that is another for the test.
"""

import functools
import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def file_name(fault: str) -> str:
    return fault.replace("/", "|")


class Fault:
    """One of them. It strikes as long as there is a file of its name."""

    def __init__(self, directory: Path, text: str) -> None:
        self._when, self._where, self._argument, count = text.split(" ")
        self._left = int(count)
        self._file = directory / file_name(text)

    def install(self) -> None:
        module_name, _, path = self._where.partition(":")
        owner: Any = importlib.import_module(module_name)
        *names, last = path.split(".")
        for name in names:
            owner = getattr(owner, name)
        original = getattr(owner, last)
        wrapped = self._wrap(getattr(original, "__func__", original))
        is_of_class = isinstance(vars(owner)[last], classmethod)
        setattr(owner, last, classmethod(wrapped) if is_of_class else wrapped)

    def _wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **named: Any) -> Any:
            is_it = any(self._is_meant(argument) for argument in args)
            if is_it and self._when == "before":
                self._strike()
            result = function(*args, **named)
            if is_it and self._when == "after":
                self._strike()
            return result

        return call

    def _is_meant(self, argument: object) -> bool:
        if self._argument in ("-", type(argument).__name__):
            return True
        if isinstance(argument, bytes):
            argument = argument.replace(b"\0", b"=").decode(errors="replace")
        return isinstance(argument, str) and argument.startswith(self._argument)

    def _strike(self) -> None:
        if not self._file.exists():
            return
        self._left -= 1
        if self._left == 0:
            self._file.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


def _set(text: str) -> None:
    where, _, value = text.partition(" ")
    module_name, _, name = where.partition(":")
    setattr(importlib.import_module(module_name), name, int(value))


if "sengu.server" in sys.orig_argv:
    for line in os.environ.get("SENGU_SETTINGS", "").splitlines():
        _set(line)
    for line in os.environ["SENGU_FAULTS"].splitlines():
        Fault(Path(os.environ["SENGU_FAULTS_ARMED"]), line).install()
