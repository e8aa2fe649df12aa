"""One run: how much of everything, the directories it works in, and the programs built for it."""

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

SOURCES = Path(__file__).parent / "programs"
EXAMPLES = Path(__file__).parent.parent / "examples"


class BenchError(Exception):
    """A measurement can not be made; the text says why."""


class Session:
    """Passed to every measurement. Its directories are removed when the run is over.

    What managers write goes to memory, where /run is on most systems: on a disk a status file that
    is replaced by rename would be what is measured. Programs stay on disk, for /dev/shm may be
    mounted noexec.
    """

    def __init__(self, stack: ExitStack, is_quick: bool) -> None:
        self.is_quick = is_quick
        self._programs = _temporary(stack, "/tmp")
        shared_memory = "/dev/shm"
        is_writable = os.access(shared_memory, os.W_OK)
        self._work = _temporary(stack, shared_memory if is_writable else "/tmp")
        self._fresh = 0

    def pick(self, full: T, quick: T) -> T:
        return quick if self.is_quick else full

    def say(self, text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)

    def fresh_directory(self, owner: int | None = None) -> Path:
        """A new directory, with a path short enough for UNIX sockets in it, and its owner's uid."""
        self._fresh += 1
        path = self._work / str(self._fresh)
        path.mkdir()
        if owner is not None:
            os.chown(path, owner, owner)
            self._work.chmod(0o711)  # so that it can be reached
        return path

    def directory_on_disk(self) -> Path:
        """A new directory where programs may lie."""
        return Path(tempfile.mkdtemp(dir=self._programs))

    def program(self, name: str, *flags: str) -> str:
        """The path of a program of ours in C, built when it is first asked for."""
        path = self._programs / "".join((name, *flags))
        if not path.exists():
            source = SOURCES / f"{name}.c"
            command = ("gcc", "-O2", "-Wall", "-Wextra", *flags, "-o", str(path), str(source))
            try:
                subprocess.run(command, check=True, timeout=60)
            except FileNotFoundError:
                raise BenchError("gcc is not installed: apt-get install gcc libc6-dev") from None
        return str(path)


def _temporary(stack: ExitStack, parent: str) -> Path:
    # A short name: paths of UNIX sockets have 107 bytes.
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sb-", dir=parent)))


def find_program(name: str) -> str:
    """The path of a program of the system. Raises BenchError."""
    path = shutil.which(name)
    if path is None:
        raise BenchError(f"{name} is not installed; tools/apt-packages-test.txt has its package")
    return path
