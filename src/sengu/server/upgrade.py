"""The server's part in an upgrade: it asks for one, stands still while another server is tried,
and says how it has ended. The supervisor does the rest. Imported by `server.instance`.
"""

import sengu
from sengu.model import events as ev
from sengu.server.beat import Beat
from sengu.server.core import Reporter
from sengu.server.link import Inheritance, Link
from sengu.server.memory import Memory
from sengu.wire import supervisor as wire

_VERSION = "version"  # the name of a note in the store: what the last server was


class Upgrade:
    """Of one server, be it the old one or the new."""

    def __init__(self, link: Link, beat: Beat, memory: Memory, reporter: Reporter) -> None:
        self._link = link
        self._beat = beat
        self._memory = memory
        self._post = reporter.post

    def request(self) -> None:
        """Have the supervisor follow itself, and try a server of the version that is installed."""
        self._link.send(wire.Upgrade())

    def note_version(self) -> None:
        """For the one that follows us."""
        self._link.send(wire.Hold(_VERSION, sengu.__version__))

    def take_up(self, found: Inheritance) -> None:
        """One was under way when we took over: we are its end, or have come for another reason."""
        if found.is_trial:
            before = found.notes.get(_VERSION, "an unknown version")
            self._post(ev.Upgraded(sengu.__version__, before))
        else:
            self.request()

    def stand_still(self) -> None:
        """Wait while a new server is tried. If it is good we are killed, and hear no more."""
        self._beat.stop()
        self._link.send(wire.Paused())
        self._link.flush_all()
        resume = self._link.await_resume()
        if resume is not None:
            self._memory.cut()
            self.fail(resume.problem)
            self._beat.start()

    def fail(self, problem: str) -> None:
        """We go on."""
        self._post(ev.UpgradeFailed(problem))
