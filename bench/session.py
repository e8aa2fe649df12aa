"""One run: how much of everything, the directory it works in, and the programs built for it."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

SOURCES = Path(__file__).parent / "programs"
EXAMPLES = Path(__file__).parent.parent / "examples"


class BenchError(Exception):
    """A measurement can not be made; the text says why."""


class Session:
    """Passed to every measurement. `directory` is removed when the run is over."""

    def __init__(self, directory: Path, is_quick: bool) -> None:
        self.directory = directory
        self.is_quick = is_quick
        self._fresh = 0

    def pick(self, full: T, quick: T) -> T:
        return quick if self.is_quick else full

    def say(self, text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)

    def fresh_directory(self) -> Path:
        """A new directory, with a path short enough for UNIX sockets in it."""
        self._fresh += 1
        path = self.directory / str(self._fresh)
        path.mkdir()
        return path

    def program(self, name: str) -> str:
        """The path of a program of ours in C, built when it is first asked for."""
        path = self.directory / name
        if not path.exists():
            command = ("gcc", "-O2", "-Wall", "-Wextra", "-o", path, SOURCES / f"{name}.c")
            try:
                subprocess.run(command, check=True, timeout=60)
            except FileNotFoundError:
                raise BenchError("gcc is not installed: apt-get install gcc libc6-dev") from None
        return str(path)


def find_program(name: str) -> str:
    """The path of a program of the system. Raises BenchError."""
    path = shutil.which(name)
    if path is None:
        raise BenchError(f"{name} is not installed; tools/apt-packages-test.txt has its package")
    return path
