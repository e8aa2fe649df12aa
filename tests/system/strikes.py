"""Servers that die at the steps that a test names, each once, from when the test arms them.

A step is written `after record WorkerReady 1`: before or after a call that `CALLS` names, with this
argument, the so manieth time. `faults` is what kills.
"""

from pathlib import Path

from tests.system import faults
from tests.system.faults.sitecustomize import file_name

# What a step is called in tests, and the call that it is.
CALLS = {
    "bind": "sengu.listeners.listeners:open_listener",
    "pid file": "sengu.server.files:PidFile._lock",
    "send": "sengu.posix.packets:send",
    "record": "sengu.server.journal:Journal.write",
    "new journal": "sengu.server.journal:Journal.create",
    "execute": "sengu.server.execute:Executor.execute",
    "order a worker": "sengu.server.forkservers:ForkServer._send",
    "hear the fork server": "sengu.server.forkservers:ForkServer._heed",
    "hear the worker": "sengu.server.crew:Crew._hear",
    "hear of a birth": "sengu.server.crew:Crew.born",
    "hear of an exit": "sengu.server.crew:Crew.ended",
    "hear of the end": "sengu.server.crew:Crew.gone",
    "hear of a command": "sengu.server.pre_deploy:_Running.ended",
    "hear a signal": "sengu.server.instance:Instance._on_signal",
    "say ready": "sengu.server.instance:Instance._say_ready",
    "look around": "sengu.server.adopt:Adoption.__init__",
    "adopt": "sengu.server.adopt:Adoption.finish",
    "pause": "sengu.server.link:Link.await_resume",
    "tell the world": "sengu.server.outside:Outside.on_settled",
    "open a slot": "sengu.listeners.slots:open_next",
    "close a slot": "sengu.listeners.slots:Slots.close_last",
    "let go": "sengu.listeners.listeners:Listeners.close",
    "take a configuration": "sengu.server.configurations:Configurations.take",
    "write a configuration": "sengu.posix.swap_file:SwapFile.write",
    "tell of a configuration": "sengu.server.crew:Crew.tell_configured",
    "open a managed socket": "sengu.server.managed:open_listener",
    "close a managed socket": "sengu.server.managed:Managed.close",
    "answer an asker": "sengu.server.socket_manager:SocketManager._send",
}


class Strikes:
    """On the server of one instance, which is started with `environment`."""

    def __init__(self, directory: Path, *steps: str) -> None:
        self._armed = directory / "armed"
        self._armed.mkdir()
        self._faults = {step: _fault(step) for step in steps}
        self.environment = {
            "PYTHONPATH": str(Path(faults.__file__).parent),
            "SENGU_FAULTS": "\n".join(self._faults.values()),
            "SENGU_FAULTS_ARMED": str(self._armed),
        }

    def arm(self, *steps: str) -> None:
        """Some of them, or all."""
        for step in steps or self._faults:
            (self._armed / file_name(self._faults[step])).touch()

    def was_reached(self) -> bool:
        """Whether all that were armed have been."""
        return not list(self._armed.iterdir())


def _fault(step: str) -> str:
    when, _, rest = step.partition(" ")
    (name,) = [name for name in CALLS if rest.startswith(f"{name} ")]
    argument, _, count = rest.removeprefix(f"{name} ").partition(" ")
    return f"{when} {CALLS[name]} {argument} {count or 1}"
