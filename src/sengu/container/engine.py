"""The engine's client: has its verbs run, and waits for them, but never for ever.

SIGCHLD is blocked in our process (`runner.block_signals`), so a wait for it has an end in time.
"""

import os
import signal
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sengu.posix import clock
from sengu.posix.descriptors import close_all

_ANSWER_SECONDS = 10.0
_REMOVAL_SECONDS = 30.0
_LIVING_STATES = frozenset({"running", "paused", "restarting", "stopping"})
_ENDED_STATES = frozenset({"exited", "stopped", "dead", "removing"})
# Python ignores them, and what is ignored stays so over exec.
_PYTHONS_OWN = (signal.SIGPIPE, signal.SIGXFSZ)


class EngineFailed(Exception):
    """It could not say; in its own words."""


class Answer(NamedTuple):
    """What a verb has said. `is_good`: it has exited with 0, and in time."""

    is_good: bool
    text: str
    problem: str


class State(NamedTuple):
    """What the engine knows of a container. One that was made but never ran has no exit code."""

    lives: bool
    exit_code: int | None


class Engine:
    """Podman, Docker, or what understands their words: `words` are those before each verb."""

    def __init__(self, words: Sequence[str], environ: Mapping[str, str]) -> None:
        self._words = words
        self._environ = environ

    def spawn(self, verb: Sequence[str]) -> int:
        """Run it with our own outputs; returns its pid. Raises OSError."""
        return self._spawn(verb, ())

    def ask(self, *verb: str, seconds: float = _ANSWER_SECONDS) -> Answer:
        """Run it to its end. Raises OSError when there is no such program."""
        outputs = {fd: os.memfd_create(f"sengu-engine-{fd}", os.MFD_CLOEXEC) for fd in (1, 2)}
        try:
            actions = [(os.POSIX_SPAWN_DUP2, ours, fd) for fd, ours in outputs.items()]
            pid = self._spawn(verb, actions)
            status = wait_for(pid, clock.monotonic() + seconds)
            text, problem = (_read(ours) for ours in outputs.values())
        finally:
            close_all(outputs.values())
        if status is None:
            problem = f"{self._words[0]} {verb[0]} did not answer in {seconds:g} s"
        return Answer(status == 0, text, problem)

    def signal(self, name: str, number: int) -> bool:
        """Signal the process 1 of a container; whether there was one."""
        return self.ask("kill", "--signal", str(number), name).is_good

    def remove(self, *names: str) -> Answer:
        """Remove them, and end those that live."""
        self.ask("kill", "--signal", "KILL", *names)  # or `rm` would ask first, and wait
        return self.ask("rm", "--force", *names, seconds=_REMOVAL_SECONDS)

    def find(self, label: str) -> list[str]:
        """Ids of containers with that label, alive or not. Raises EngineFailed, OSError."""
        answer = self.ask("ps", "--all", "--quiet", "--filter", f"label={label}")
        if not answer.is_good:
            raise EngineFailed(answer.problem)
        return answer.text.split()

    def state(self, name: str) -> State | None:
        """None when there is none, or the engine does not say."""
        wanted = "{{.State.Status}} {{.State.ExitCode}}"
        answer = self.ask("container", "inspect", "--format", wanted, name)
        words = answer.text.split()
        if not answer.is_good or len(words) != 2:
            return None
        return State(
            words[0] in _LIVING_STATES, int(words[1]) if words[0] in _ENDED_STATES else None
        )

    def _spawn(self, verb: Sequence[str], actions: Sequence[tuple[int, int, int]]) -> int:
        return os.posix_spawnp(
            self._words[0],
            [*self._words, *verb],
            self._environ,
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), *actions],
            setsigmask=(),
            setsigdef=_PYTHONS_OWN,
        )


def wait_for(pid: int, deadline: float) -> int | None:
    """The exit code of a child, 128+n for a signal. At the deadline it is killed, and None."""
    while True:
        code = reap(pid)
        if code is not None:
            return code
        left = deadline - clock.monotonic()
        if left <= 0:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        signal.sigtimedwait({signal.SIGCHLD}, left)


def reap(pid: int) -> int | None:
    """The exit code of a child that has ended, 128+n for a signal."""
    found, status = os.waitpid(pid, os.WNOHANG)
    if not found:
        return None
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _read(fd: int) -> str:
    return os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace").strip()
