"""Kills the server of a running sengu, and waits for the one that adopts."""

import os
import signal
import time
from typing import NamedTuple

from bench.control import Control
from bench.session import BenchError

_ADOPT_SECONDS = 30.0


class Adoption(NamedTuple):
    """Milliseconds since the kill: until the event `server_adopted`, by its own time, and until the
    new server has answered a question at the control socket.
    """

    event: float
    answer: float


def kill_server(control: Control) -> Adoption:
    """Raises BenchError when no server adopts."""
    status = control.call("GET", "/v1/status")
    control.close()  # it ends with the server
    killed_on, begin = time.time(), time.monotonic()
    os.kill(status["server_pid"], signal.SIGKILL)
    while time.monotonic() < begin + _ADOPT_SECONDS:
        try:
            events = control.events(status["last_event"])
        except ConnectionError:  # the dying one had accepted
            control.close()
            continue
        answered = time.monotonic()
        for event in events:
            if event["type"] == "server_adopted":
                return Adoption((event["time"] - killed_on) * 1000, (answered - begin) * 1000)
    raise BenchError(f"no server of sengu has adopted within {_ADOPT_SECONDS:g} s")
