"""Docker, as far as it can be had without its daemon: see `tests.stand_in_docker`."""

import json
import os
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.support import WAIT_SECONDS

SCRIPT = Path(__file__).with_name("stand_in_docker.py")


class Docker:
    """A program `docker` of its own, with the image `web`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "docker-state"
        for name in ("images", "registry"):
            (self.directory / name).mkdir(parents=True)
        (self.directory / "images/web").touch()
        self.bin = directory / "docker-bin"
        self.bin.mkdir()
        program = self.bin / "docker"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {SCRIPT} {self.directory} "$@"\n')
        program.chmod(0o755)
        self.program = str(program)

    @property
    def calls(self) -> list[list[str]]:
        """What it was asked, verb by verb."""
        log = self.directory / "log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    @property
    def names(self) -> list[str]:
        """All containers, those that have ended too."""
        return sorted(path.stem for path in self.directory.glob("*.json"))

    def facts(self, name: str) -> dict[str, Any]:
        return dict(json.loads((self.directory / f"{name}.json").read_text()))

    def stop_daemon(self) -> None:
        (self.directory / "down").touch()

    def start_daemon(self) -> None:
        (self.directory / "down").unlink()

    def forget(self) -> None:
        """Let no container be known any more."""
        for name in self.names:
            (self.directory / f"{name}.json").unlink()

    def close(self) -> None:
        """KILL what is left, so that a failed test leaves nothing, and wait for it."""
        for name in self.names:
            facts = self.facts(name)
            with suppress(ProcessLookupError):
                keeper = os.pidfd_open(facts["keeper"])
                with suppress(ProcessLookupError):
                    os.kill(facts["pid"], signal.SIGKILL)
                select.select([keeper], [], [], WAIT_SECONDS)
                os.close(keeper)
