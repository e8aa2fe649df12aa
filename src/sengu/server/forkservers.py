"""Fork servers, one for each generation of an application: started, adopted, ordered from, ended.

What they report becomes facts. That a worker was born the supervisor tells.
"""

import os
import select
import socket
from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from sengu.errors import UsageError
from sengu.model import events as ev
from sengu.model.observed import Generation
from sengu.model.service import Pacing
from sengu.posix import packets
from sengu.posix.descriptors import close_all, copies
from sengu.posix.process import Process
from sengu.server.configurations import Found
from sengu.server.fork_plan import Context, Letter, Plan, fork_server, send_load
from sengu.server.member import capture, worker_key
from sengu.wire import forkserver as wire

_MESSAGES_AT_ONCE = 1024  # more than wait at a time: a socket's buffer holds fewer
_END_SECONDS = 2.0
_PREFIX = "forkserver/"  # keys are forkserver/GENERATION/TOKEN


class ForkServer:
    """The fork server of one generation: its process, and the socket to it.

    `pacing` is the generation's, told again when the application is loaded.
    """

    def __init__(self, context: Context, generation: int, key: str) -> None:
        """Raises OSError."""
        self._context = context
        self._generation = generation
        self.key = key
        self.pacing = Pacing()
        self._letters: deque[Letter] = deque()
        self._socket: socket.socket
        self._is_loaded = False
        self._has_failed = False
        self._has_exited = False
        self._relays = capture(context.loop, context.stage, key)
        held = context.link.take(_socket_name(key))
        if held is not None:
            self._socket = socket.socket(fileno=held.fd)

    @property
    def is_heard(self) -> bool:
        """Whether it, or a process in between, may still have something to say."""
        return self._socket.fileno() >= 0

    @property
    def is_gone(self) -> bool:
        return self._has_exited and not self.is_heard

    def start(self, plan: Plan) -> None:
        """Have its process made. Raises OSError, ValueError; nothing is left then."""
        context, stage = self._context, self._context.stage
        self._socket, theirs = packets.pair()
        with theirs:
            try:
                send_load(self._socket, context, plan)
                context.link.hold(_socket_name(self.key), self._socket.fileno())
                outputs = {fd: relay.write_end for fd, relay in self._relays.items()}
                order = fork_server(stage, plan, outputs, (theirs.fileno(), context.births_fd))
                context.children.spawn(self.key, order, self)
            except (OSError, ValueError):
                for relay in self._relays.values():
                    relay.abandon()
                self._close_socket()
                raise
        self.attend()

    def resume(self, generation: Generation) -> None:
        """Go on with a fork server that was there before us, of which so much is known."""
        self._is_loaded = generation.prepared
        self.pacing = generation.pacing
        self._context.children.adopt(self.key, self)
        self.attend()
        inquiry = generation.inquiry
        if inquiry is not None and inquiry.sent_at is not None:
            self.inquire(inquiry.number)  # it may never have left; who has heard it takes no notice

    def attend(self) -> None:
        """Hear what it says from now on."""
        self._socket.setblocking(False)
        for relay in self._relays.values():
            relay.start()
        self._watch()

    def order(self, fork: wire.Fork, passed: Iterable[int]) -> None:
        """Ask for a worker. That it lives the supervisor tells; that it does not, we do.

        Raises OSError.
        """
        letter = Letter(fork, copies(passed))
        # Sent by the loop, when what the worker needs is in safe hands; so that many orders of one
        # plan are one batch at the other end.
        self._context.link.then(lambda: self._post(letter))

    def inquire(self, inquiry: int) -> None:
        """Have it read the configuration anew."""
        self._post(Letter(wire.Configure(inquiry), ()))

    def end(self) -> None:
        """It is not needed any more; its workers live on. Who was asked for is not waited for.

        It ends when its socket is closed; what the application does at its end may take a moment.
        """
        self._close_socket()
        if not self._has_exited:
            self._has_exited = True
            self._context.children.leave(self.key, _END_SECONDS)
        self._tell_unborn()

    def last_words(self) -> str:
        return self._relays[2].last_words()

    def born(self, _process: Process) -> None:
        """It loads the application now."""

    def not_born(self, problem: str) -> None:
        self._has_failed = self._has_exited = True
        self._context.ears.post(ev.GenerationFailed(self._generation, problem))
        self._close_socket()
        for relay in self._relays.values():
            relay.abandon()

    def ended(self, how: str) -> None:
        self._hear()
        self._has_exited = True
        number, post = self._generation, self._context.ears.post
        if self._is_loaded:
            post(ev.GenerationLost(number, f"it ended with {how}"))
        elif not self._has_failed:
            problem = f"the fork server ended with {how} while it loaded the application"
            post(ev.GenerationFailed(number, problem, self.last_words()))
        self._context.children.reap(self.key)
        self._tell_unborn()

    def gone(self) -> None:
        """Nothing of it is left."""

    def _post(self, letter: Letter) -> None:
        if not self.is_heard:  # it is about to end, and that is told
            close_all(letter.descriptors)
            return
        self._letters.append(letter)
        self._watch()

    def _hear(self) -> None:
        """Take in what it has sent: each is on record before it is taken out of the socket."""
        for _ in range(_MESSAGES_AT_ONCE):
            if not self.is_heard:
                return
            try:
                data, passed = packets.receive(self._socket, socket.MSG_PEEK)
                if data:
                    self._take(data, passed)
                    if self.is_heard:  # it may have been given up for what it said
                        close_all(packets.receive(self._socket)[1])
            except BlockingIOError:
                return
            except OSError:  # the socket is broken: as good as closed
                data = b""
            if not data:
                self._close_socket()
                return

    def _take(self, data: bytes, passed: Sequence[int]) -> None:
        number, ears = self._generation, self._context.ears
        try:
            report: wire.FromForkServer = wire.decode_report(data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            # It runs what is not ours. No server must end of it, or the next one would as well.
            ears.warn(f"the fork server of generation {number} is not understood: {error}")
            close_all(passed)
            self._close_socket()
            return
        self._heed(report, passed)

    def _heed(self, report: wire.FromForkServer, passed: Sequence[int]) -> None:
        number, ears = self._generation, self._context.ears
        match report:
            case wire.Loaded():
                for line in report.warnings:
                    ears.warn(line)
                self._loaded(report, passed)
            case wire.LoadFailed():
                self._has_failed = True
                ears.post(ev.GenerationFailed(number, report.problem, report.details))
            case wire.ForkFailed():
                self._give_up(report.worker, report.problem)
            case wire.Configured():
                self._configured(report, passed)
            case wire.ConfigureFailed(inquiry, problem, details):
                ears.post(ev.ConfigureFailed(number, inquiry, problem, details))

    def _loaded(self, report: wire.Loaded, passed: Sequence[int]) -> None:
        number, ears = self._generation, self._context.ears
        if passed:
            found = Found(report.settings, passed[0])
            try:
                self.pacing = self._context.configurations.take(number, found, report.inquiry)
            except UsageError as error:
                self._has_failed = True
                ears.post(ev.GenerationFailed(number, str(error)))
                self._close_socket()  # then it ends
                return
            self._amend()
        self._is_loaded = True
        ears.post(ev.GenerationPrepared(number, self.pacing))

    def _configured(self, report: wire.Configured, passed: Sequence[int]) -> None:
        number, inquiry = self._generation, report.inquiry
        try:
            if not passed:
                raise UsageError("no descriptor is free for the configuration; raise ulimit -n")
            found = Found(report.settings, passed[0])
            self.pacing = self._context.configurations.take(number, found, inquiry)
        except UsageError as error:
            self._context.ears.post(ev.ConfigureFailed(number, inquiry, str(error)))
        else:
            self._amend()

    def _amend(self) -> None:
        """Workers are born by what the configuration says from now on."""
        application = self._context.configurations.application
        if application is not None:
            self._post(Letter(wire.Amend(application), ()))

    def _give_up(self, worker: int, problem: str) -> None:
        self._context.children.give_up(worker_key(worker), problem)

    def _send(self) -> None:
        while self._letters and self.is_heard:
            letter = self._letters[0]
            try:
                packets.send(self._socket, wire.encode(letter.message), letter.descriptors)
            except BlockingIOError:  # it is busy with those before
                break
            except OSError as error:
                if isinstance(letter.message, wire.Fork):
                    self._give_up(letter.message.worker, f"the fork server: {error.strerror}")
            self._letters.popleft()
            close_all(letter.descriptors)
        self._watch()

    def _watch(self) -> None:
        if self.is_heard:
            events = select.EPOLLIN | (select.EPOLLOUT if self._letters else 0)
            self._context.loop.watch(self._socket.fileno(), events, self._on_ready)

    def _on_ready(self) -> None:
        self._hear()
        if self._letters:
            self._send()

    def _close_socket(self) -> None:
        """No birth is to be expected any more."""
        if not self.is_heard:
            return
        self._context.link.drop(_socket_name(self.key))
        self._context.loop.unwatch(self._socket.fileno())
        self._socket.close()
        for letter in self._letters:
            close_all(letter.descriptors)
        self._letters.clear()
        self._tell_unborn()

    def _tell_unborn(self) -> None:
        """Not before it was told what has become of us: or they would be asked for again, of us."""
        if self.is_gone:
            for worker in self._context.ears.unborn(self._generation):
                self._give_up(worker, "its fork server ended")


class ForkServers:
    """All of them, by generation."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._all: dict[int, ForkServer] = {}

    def start(self, plan: Plan, pacing: Pacing) -> None:
        """Have the fork server of a generation started; facts tell when it has loaded.

        Raises OSError, ValueError.
        """
        self.end(plan.generation)
        key = f"{_PREFIX}{plan.generation}/{os.urandom(4).hex()}"
        server = ForkServer(self._context, plan.generation, key)
        server.start(plan)
        server.pacing = pacing
        self._all[plan.generation] = server

    def adopt(self, generation: Generation) -> bool:
        """Take over the generation's fork server; whether there is one. Raises OSError."""
        children, link = self._context.children, self._context.link
        if not generation.prepared and generation.preparing_since is None:
            return False  # then whoever is there is not what is waited for
        for key in children.names(f"{_PREFIX}{generation.number}/"):
            is_here = children.has(key) and not children.has_ended(key)
            if is_here and _socket_name(key) in link.names("socket/"):
                server = ForkServer(self._context, generation.number, key)
                self._all[generation.number] = server
                server.resume(generation)
                return True
        return False

    def order(self, generation: int, fork: wire.Fork, passed: Iterable[int]) -> None:
        """Ask for a worker; the descriptors are copied. Raises OSError when there is nobody."""
        server = self._all.get(generation)
        if server is None or server.is_gone:
            raise OSError(None, "the fork server is gone")
        server.order(fork, passed)

    def inquire(self, generation: int, inquiry: int) -> None:
        """Have the configuration read anew; who is gone does not, and that is told."""
        server = self._all.get(generation)
        if server is not None and server.is_heard:
            server.inquire(inquiry)

    def end(self, generation: int) -> str:
        """End the one of this generation, if there is one; returns its last words."""
        server = self._all.pop(generation, None)
        if server is None:
            return ""
        words = server.last_words()
        server.end()
        return words

    def close(self) -> None:
        for generation in list(self._all):
            self.end(generation)


def _socket_name(key: str) -> str:
    return f"socket/{key}"
