"""Runs a verb that becomes the supervisor, up to where it would execute it."""

import os
from collections.abc import Mapping

import pytest

from sengu.cli.main import run
from sengu.config.boot import unseal


class Executed(Exception):
    """Takes the place of the supervisor. `options` are its arguments of the form NAME=VALUE."""

    def __init__(self, arguments: list[str], environ: Mapping[str, str]) -> None:
        super().__init__()
        self.arguments = arguments
        self.environ = environ
        options = (one.partition("=") for one in arguments if "=" in one)
        self.options = {name: value for name, _, value in options}
        self.inherits = {fd for fd in map(int, os.listdir("/proc/self/fd")) if is_inherited(fd)}
        self.boot = unseal(int(self.options["boot"]))


def is_inherited(fd: int) -> bool:
    try:
        return fd > 2 and os.get_inheritable(fd)
    except OSError:  # that of the listing
        return False


def execute(monkeypatch: pytest.MonkeyPatch, verb: str, *args: str) -> Executed:
    """What `sengu VERB ARGS` would execute. Its control socket is in the current directory."""

    def execve(_path: str, arguments: list[str], environ: Mapping[str, str]) -> None:
        raise Executed(arguments, environ)

    monkeypatch.setattr(os, "execve", execve)
    with pytest.raises(Executed) as raised:
        run([verb, "--control", "control.sock", *args])
    return raised.value
