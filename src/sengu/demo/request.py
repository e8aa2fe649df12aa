"""One request as a client saw it, and how the load process tells it to the demonstration.

Pure. Times are seconds of the monotonic clock. Imported by everything in `demo` that counts.
"""

import enum

import msgspec


class Stage(enum.StrEnum):
    """How far a request came before it failed."""

    NONE = ""
    CONNECT = "connecting"
    SEND = "sending the request"
    RECEIVE = "waiting for the answer"
    ANSWER = "reading the answer"


class Fault(enum.StrEnum):
    """What went wrong. `CUT`: the connection broke before the answer was complete."""

    NONE = ""
    CUT = "the connection was cut"
    TIMEOUT = "no answer in time"
    REFUSED = "no connection"
    STATUS = "an answer other than 200"


class Request(msgspec.Struct, frozen=True, array_like=True):
    """`begun` is when the client was to send it, `sent` when all of it was sent, 0 for never.

    `detail` is the system's word on a fault. The last three are what the answer said.
    """

    begun: float
    sent: float
    ended: float
    stage: Stage = Stage.NONE
    fault: Fault = Fault.NONE
    detail: str = ""
    version: str = ""
    generation: int = 0
    pid: int = 0

    @property
    def seconds(self) -> float:
        return self.ended - self.begun

    @property
    def failed(self) -> bool:
        return self.fault is not Fault.NONE

    @property
    def was_in_hand(self) -> bool:
        """Whether it broke the way it does when the process that has taken it dies."""
        return self.fault is Fault.CUT and self.stage in (Stage.SEND, Stage.RECEIVE)


class LoadOrder(msgspec.Struct, frozen=True):
    """What the load process is to do. Each client sends a request every `interval_seconds`."""

    port: int
    target: str
    clients: int
    interval_seconds: float
    timeout_seconds: float = 10.0


_LINE: msgspec.json.Decoder[Request | int] = msgspec.json.Decoder(Request | int)


def encode_line(message: Request | int) -> bytes:
    """A request; or how many there were, which is the last line, so that none is forgotten."""
    return msgspec.json.encode(message) + b"\n"


def decode_line(line: str) -> Request | int:
    """Read what `encode_line` wrote. Raises msgspec.MsgspecError."""
    return _LINE.decode(line)
