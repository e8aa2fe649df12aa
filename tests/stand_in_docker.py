"""A stand-in for `docker`, as no daemon can run here: the verbs that sengu uses.

Containers are processes of their own session that outlive the client, as those of a daemon do. An
image is a file in `images`; its program is the container's arguments. The directory is the first
argument, which the wrapper gives (`tests.docker`).
"""

import json
import os
import re
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

Facts = dict[str, Any]

DOWN = (
    "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. "
    "Is the docker daemon running?"
)


class Containers:
    """What the daemon knows, in files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def names(self) -> list[str]:
        return sorted(path.stem for path in self.directory.glob("*.json"))

    def fifo(self, name: str) -> Path:
        return self.directory / f"{name}.output"

    def read(self, name: str) -> Facts:
        try:
            return dict(json.loads((self.directory / f"{name}.json").read_text()))
        except FileNotFoundError:
            sys.exit(f"Error response from daemon: No such container: {name}")

    def write(self, name: str, facts: Facts) -> None:
        new = self.directory / f"{name}.new"
        new.write_text(json.dumps(facts))
        new.rename(self.directory / f"{name}.json")

    def remove(self, name: str) -> None:
        for path in (self.directory / f"{name}.json", self.fifo(name)):
            path.unlink(missing_ok=True)


def run(containers: Containers, words: list[str]) -> int:
    options, image, args = split(words)
    if not (containers.directory / "images" / image).exists():
        print(f"docker: Error response from daemon: No such image: {image}", file=sys.stderr)
        return 125
    making = containers.directory / "making"
    if making.exists():  # a FIFO: whoever opens it lets us go on
        making.read_text()
    name = options["--name"][0]
    if name in containers.names():
        print(f'docker: Error response from daemon: Conflict. "/{name}" is used', file=sys.stderr)
        return 125
    os.mkfifo(containers.fifo(name))
    keep = os.open(containers.fifo(name), os.O_RDWR)
    facts = {
        "labels": dict(label.split("=", 1) for label in options.get("--label", [])),
        "stop": (int(options["--stop-signal"][0]), int(options["--stop-timeout"][0])),
        "status": "created",
        "code": 0,
    }
    born, tell = os.pipe()
    if os.fork() == 0:
        keep_container(containers, name, facts, (args, environment(options)), (keep, tell))
    os.close(tell)
    os.read(born, 1)
    output = open_output(containers, name)  # before: what nobody has open forgets what is in it
    os.close(keep)
    return follow(containers, name, output)


def keep_container(
    containers: Containers,
    name: str,
    facts: Facts,
    program: tuple[list[str], dict[str, str]],
    descriptors: tuple[int, int],
) -> None:
    """The daemon's part: a process beside the container, away from the client."""
    os.setsid()
    if os.fork():
        os._exit(0)
    output, tell = descriptors
    args, environ = program
    pid = os.fork()
    if pid == 0:
        os.setsid()
        for fd in (1, 2):
            os.dup2(output, fd)
        os.execvpe(args[0], args, environ)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    facts |= {"pid": pid, "keeper": os.getpid()}
    containers.write(name, {**facts, "status": "running"})
    os.write(tell, b"1")
    os.close(tell)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if name in containers.names():
        code = code if code >= 0 else 128 - code
        containers.write(name, {**facts, "status": "exited", "code": code})
    os._exit(0)


def open_output(containers: Containers, name: str) -> int:
    return os.open(containers.fifo(name), os.O_RDONLY | os.O_NONBLOCK)


def follow(containers: Containers, name: str, output: int) -> int:
    """Pass its output on until it has ended."""
    poll = select.poll()
    poll.register(output, select.POLLIN)
    while containers.read(name)["status"] == "running" or poll.poll(0):
        poll.poll()
        try:
            data = os.read(output, 65536)
        except BlockingIOError:
            continue
        if not data and containers.read(name)["status"] != "running":
            break
        os.write(1, data)
    return int(containers.read(name)["code"])


def split(words: list[str]) -> tuple[dict[str, list[str]], str, list[str]]:
    """Options, image, arguments."""
    options: dict[str, list[str]] = {}
    at = 0
    while words[at].startswith("-"):
        flag, equals, value = words[at].partition("=")
        if not equals:
            at += 1
            value = words[at]
        options.setdefault(flag, []).append(value)
        at += 1
    return options, words[at], words[at + 1 :]


def environment(options: dict[str, list[str]]) -> dict[str, str]:
    environ = {"PATH": "/usr/bin:/bin"}
    for name in options.get("--env", []):
        environ[name] = os.environ[name]
    for path in options.get("--env-file", []):
        pairs = (line.partition("=") for line in Path(path).read_text().splitlines())
        environ |= {name: value for name, _, value in pairs}
    return environ


def show(template: str, name: str, facts: Facts) -> str:
    text = re.sub(
        r'\{\{index \.Config\.Labels "(.*?)"\}\}',
        lambda match: facts["labels"].get(match[1], ""),
        template,
    )
    known = {
        ".State.Status": facts["status"],
        ".State.ExitCode": facts["code"],
        ".Name": f"/{name}",
    }
    return re.sub(r"\{\{(.*?)\}\}", lambda match: str(known[match[1]]), text)


def end(facts: Facts, number: int, seconds: float) -> None:
    """Signal it, wait, and kill what is left then; and wait until its end is written down."""
    if facts["status"] != "running":
        return
    with suppress(ProcessLookupError):  # it has ended
        pidfd = os.pidfd_open(facts["pid"])
        os.kill(facts["pid"], number)
        if not select.select([pidfd], [], [], seconds)[0]:
            os.kill(facts["pid"], signal.SIGKILL)
    with suppress(ProcessLookupError):  # else it would write to what was removed meanwhile
        select.select([os.pidfd_open(facts["keeper"])], [], [])


def attach(containers: Containers, words: list[str]) -> int:
    return follow(containers, words[-1], open_output(containers, words[-1]))


def pull(containers: Containers, words: list[str]) -> int:
    if not (containers.directory / "registry" / words[0]).exists():
        sys.exit(f"Error response from daemon: pull access denied for {words[0]}")
    (containers.directory / "images" / words[0]).touch()
    return 0


def ps(containers: Containers, words: list[str]) -> int:
    label, _, value = words[-1].removeprefix("label=").partition("=")
    for name in containers.names():
        if containers.read(name)["labels"].get(label) == value:
            print(name)
    return 0


def inspect(containers: Containers, words: list[str]) -> int:
    for name in words[3:]:
        print(show(words[2], name, containers.read(name)))
    return 0


def kill(containers: Containers, words: list[str]) -> int:
    number = int(words[1]) if words[1].isdecimal() else signal.Signals[f"SIG{words[1]}"]
    for name in words[2:]:
        facts = containers.read(name)
        if facts["status"] != "running":
            sys.exit(f"Error response from daemon: container {name} is not running")
        os.kill(facts["pid"], number)
    return 0


def stop(containers: Containers, words: list[str]) -> int:
    for name in words:
        facts = containers.read(name)
        number, seconds = facts["stop"]
        end(facts, number, seconds)
    return 0


def rm(containers: Containers, words: list[str]) -> int:
    for name in words[1:]:
        end(containers.read(name), signal.SIGKILL, 0)
        containers.remove(name)
    return 0


VERBS = {
    "attach": attach,
    "container": inspect,
    "kill": kill,
    "ps": ps,
    "pull": pull,
    "rm": rm,
    "run": run,
    "stop": stop,
}


def main(directory: Path, verb: str, *words: str) -> int:
    with (directory / "log").open("a") as log:
        log.write(json.dumps([verb, *words]) + "\n")
    if (directory / "down").exists():
        print(f"docker: {DOWN}" if verb == "run" else DOWN, file=sys.stderr)
        return 125 if verb == "run" else 1
    return VERBS[verb](Containers(directory), list(words))


sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
