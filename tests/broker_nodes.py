"""Nodes of Debian's rabbitmq-server for tests, on loopback ports of their own.

They end with the process that started them, however it ends, and so does what they started. A
start takes about six seconds of a processor, an orderly stop as long, a kill nothing.
"""

import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from tests import processes
from tests.broker import CTL, Broker
from tests.ports import free_port
from tests.support import requires, short_directory

# Not that of /usr/sbin, which becomes another user.
_SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"
_START_SECONDS = 90.0
_END_SECONDS = 20.0

# Small logs, as they are memory too; no spinning while nothing happens; figures of a second ago.
_CONFIGURATION = """\
listeners.tcp.1 = 127.0.0.1:{port}
management.tcp.ip = 127.0.0.1
management.tcp.port = {management_port}
management.rates_mode = basic
collect_statistics_interval = 1000
log.file.level = warning
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 50MB
raft.wal_max_size_bytes = 16777216
cluster_partition_handling = pause_minority
cluster_formation.target_cluster_size_hint = {size}
"""
# What is to leave a retry queue while RabbitMQ starts, it may try to move before it knows where to
# (the log says "Cannot forward any dead-letter messages"), and then again after three minutes.
_ADVANCED_CONFIGURATION = """\
[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 2000}, {quorum_tick_interval, 1000}]}].
"""
_ON_LOOPBACK = "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false"
_WITHOUT_SPINNING = "+sbwt none +sbwtdcpu none +sbwtdio none"


class Node(Broker):
    """A node of the process that makes it, which can end and begin again on the same ports."""

    def __init__(self, home: Path, epmd_port: int, name: str, cluster: Sequence[str]) -> None:
        self.directory = home / name
        self._process: subprocess.Popen[bytes] | None = None
        for part in ("mnesia", "log"):
            (self.directory / part).mkdir(parents=True)
        port, management_port = free_port(), free_port()
        configuration = _CONFIGURATION.format(
            port=port, management_port=management_port, size=len(cluster)
        )
        if len(cluster) > 1:
            configuration += "cluster_formation.peer_discovery_backend = classic_config\n"
        for number, peer in enumerate(cluster, 1):
            configuration += f"cluster_formation.classic_config.nodes.{number} = {peer}\n"
        (self.directory / "rabbitmq.conf").write_text(configuration)
        (self.directory / "enabled_plugins").write_text("[rabbitmq_management].\n")
        (self.directory / "advanced.config").write_text(_ADVANCED_CONFIGURATION)
        (self.directory / "env.conf").touch()
        env = _environment(home, self.directory, epmd_port) | {
            "RABBITMQ_NODENAME": f"{name}@localhost",
            "RABBITMQ_NODE_PORT": str(port),
        }
        super().__init__(f"{name}@localhost", env, port, management_port)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """That of the Erlang machine."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        """Ends when it serves. Does nothing if it runs."""
        if not self.is_running:
            with self.starting():
                pass
        return self

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Begins to start; has started at the end of the context."""
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as told:
            path = self.directory / "notify"
            path.unlink(missing_ok=True)
            told.bind(str(path))
            with (self.directory / "output").open("ab") as output:
                self._process = _spawn(
                    [_SERVER], {**self.env, "NOTIFY_SOCKET": str(path)}, output.fileno()
                )
            yield
            self._wait_ready(told)

    def _wait_ready(self, told: socket.socket) -> None:
        end = time.monotonic() + _START_SECONDS
        pidfd = os.pidfd_open(self.pid)
        try:
            watched: list[Any] = [told, pidfd]
            while select.select(watched, [], [], max(0.0, end - time.monotonic()))[0] == [told]:
                if b"READY=1" in told.recv(4096):
                    return
        finally:
            os.close(pidfd)
        output = (self.directory / "output").read_text(errors="replace")
        raise RuntimeError(f"RabbitMQ did not start:\n{output}")

    def stop(self) -> None:
        """In order: it tells its clients."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """By SIGKILL, and all queues that were declared before are there afterwards.

        RabbitMQ 3.10 knows a quorum queue of a moment ago no more if it is killed, and whoever
        wants something of it waits a minute for an INTERNAL_ERROR.
        """
        self.ctl("eval", "[dets:sync(Table) || Table <- dets:all()], mnesia:sync_log().")
        self._end(signal.SIGKILL)

    def discard(self) -> None:
        """Its data are not wanted any more."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            _end(self._process, number)
            self._process = None

    @contextmanager
    def out_of_memory(self) -> Iterator[None]:
        """While it is, it blocks all connections that publish."""
        self.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
        try:
            yield
        finally:
            self.ctl("set_vm_memory_high_watermark", "absolute", "1GB")


@contextmanager
def cluster(size: int = 3) -> Iterator[tuple[Node, ...]]:
    """So many nodes that know each other, in a directory of their own; all run."""
    require()
    home = short_directory()
    cookie = home / ".erlang.cookie"
    cookie.write_text("only-for-tests")
    cookie.chmod(0o400)  # else Erlang refuses it
    epmd_port = free_port()
    names = [f"rabbit{number}" for number in range(1, size + 1)]
    peers = [f"{name}@localhost" for name in names]
    nodes: tuple[Node, ...] = ()
    epmd = _spawn(
        ["epmd", "-address", "127.0.0.1", "-port", str(epmd_port)],
        {"PATH": os.environ["PATH"]},
        subprocess.DEVNULL,
    )
    try:
        nodes = tuple(Node(home, epmd_port, name, peers) for name in names)
        _start_all(nodes)
        yield nodes
    finally:
        for node in nodes:
            node.discard()
        _end(epmd, signal.SIGKILL)
        shutil.rmtree(home)


def _start_all(nodes: Sequence[Node]) -> None:
    """At the same time."""
    if nodes:
        with nodes[0].starting():
            _start_all(nodes[1:])


@contextmanager
def node() -> Iterator[Node]:
    """One that runs, and is nobody else's."""
    with cluster(1) as (only,):
        yield only


def require() -> None:
    """For what needs RabbitMQ."""
    for program in (_SERVER, CTL, "epmd"):
        requires(program)


def _environment(home: Path, directory: Path, epmd_port: int) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),  # where the cookie is
        "LANG": "C.UTF-8",
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(directory / "advanced.config"),
        "RABBITMQ_CONF_ENV_FILE": str(directory / "env.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_PID_FILE": str(directory / "pid"),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{_ON_LOOPBACK} {_WITHOUT_SPINNING}",
        "RABBITMQ_CTL_ERL_ARGS": _ON_LOOPBACK,
    }


def _spawn(command: Sequence[str], env: Mapping[str, str], output: int) -> subprocess.Popen[bytes]:
    """One that is killed when we end, in whatever way, and that terminals do not interrupt."""
    process = subprocess.Popen(
        [requires("setpriv"), "--pdeathsig", "KILL", "--", *command],
        env=env,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    processes.keep(process)
    return process


def _end(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Ends it, and waits until what it had started has followed."""
    below = processes.descendants_of(process.pid)
    with suppress(ProcessLookupError):
        process.send_signal(number)
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_END_SECONDS)
    assert not processes.wait_gone(below, _END_SECONDS), f"outlive RabbitMQ: {below}"
