"""Runs a verb that becomes the server, up to where it would execute it."""

import os
from collections.abc import Mapping

import pytest

from sengu.cli.main import run
from sengu.config.boot import Boot, unseal


class Executed(Exception):
    """Takes the place of the server."""

    def __init__(self, arguments: list[str], environ: Mapping[str, str]) -> None:
        super().__init__()
        self.arguments = arguments
        self.environ = environ

    @property
    def boot(self) -> Boot:
        return unseal(int(self.arguments[4]))


def execute(monkeypatch: pytest.MonkeyPatch, *args: str) -> Executed:
    """What `sengu ARGS` would execute."""

    def execve(_path: str, arguments: list[str], environ: Mapping[str, str]) -> None:
        raise Executed(arguments, environ)

    monkeypatch.setattr(os, "execve", execve)
    with pytest.raises(Executed) as raised:
        run(args)
    return raised.value
