"""Containers by Podman, with a storage of our own, of an image made from one program of ours."""

import os
import shutil
import subprocess
from typing import ClassVar, Self

from bench.program import command_version, last_line
from bench.session import BenchError, Session, find_program

_TIMEOUT_SECONDS = 60.0
_ENGINE_FAILED = 125  # and above: what engines exit with when it is not the program's exit code


class Podman:
    """Use it as a context manager: its containers and images end with it."""

    label: ClassVar[str] = "Podman"
    image: ClassVar[str] = "bench"
    # Those of a container; they could not be raised to the engine's defaults everywhere.
    limits: ClassVar[tuple[str, ...]] = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000")

    def __init__(self, session: Session, program: str) -> None:
        """An image in which `program`, linked statically, is /worker. Raises BenchError."""
        if os.getuid() != 0:  # a user's Podman leaves a process that holds its namespaces
            raise BenchError("only those of root are measured")
        directory = session.directory_on_disk()
        self.engine = (
            *(find_program("podman"), "--root", f"{directory}/storage"),
            *("--runroot", f"{directory}/run", "--storage-driver", "vfs"),
            *("--runtime", find_program("runc"), "--cgroup-manager", "cgroupfs"),
        )
        root = directory / "root"
        root.mkdir()
        shutil.copy(program, root / "worker")
        archive = directory / "root.tar"
        subprocess.run(("tar", "-C", root, "-cf", archive, "."), check=True)
        self._call("import", str(archive), self.image)

    @classmethod
    def version(cls) -> str | None:
        """None when it cannot run containers here."""
        return command_version("podman", "--version") if shutil.which("runc") else None

    def run_words(self) -> tuple[str, ...]:
        """What runs a container, before the words that are run in it."""
        return (*self.engine, "run", "--rm", "--net=host", *self.limits, self.image)

    def try_out(self) -> None:
        """Raises BenchError if no container can be run here."""
        done = self._ask(*self.run_words()[len(self.engine) :], "/worker")
        if done.returncode >= _ENGINE_FAILED:  # the worker's own: it has been told no port
            raise BenchError(f"podman cannot run one: {last_line(done.stdout)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_problem: object) -> None:
        self._call("rm", "--all", "--force", "--time", "0")
        self._call("rmi", "--all", "--force")

    def _call(self, *args: str) -> None:
        done = self._ask(*args)
        if done.returncode:
            raise BenchError(f"podman {args[0]}: {last_line(done.stdout)}")

    def _ask(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            (*self.engine, *args),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
