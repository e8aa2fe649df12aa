"""The control API's vocabulary: paths, requests and answers, as typed structs.

Server and client both import it, so it imports msgspec and the model only. Times are seconds;
`at` and `time` are UNIX time, everything else is a duration. `docs/openapi.json` says the same
to everybody else. Clients ignore fields they do not know, so that adding one breaks nobody.
"""

import enum
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from sengu.model.events import Event
from sengu.model.observed import Outcome
from sengu.model.passage import PassageStatus
from sengu.model.service import MAX_WORKERS

STATUS_PATH = "/v1/status"
RELOAD_PATH = "/v1/reload"
STOP_PATH = "/v1/stop"
SCALE_PATH = "/v1/scale"
UPGRADE_PATH = "/v1/upgrade"
CONFIGURE_PATH = "/v1/configure"
DUMP_PATH = "/v1/dump"
EVENTS_PATH = "/v1/events"

Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_WORKERS)]

# The requester's own name for a request. Who has lost the answer, as its server was replaced, asks
# again under the same name, and nothing is done twice. Empty: each request is another.
Token = Annotated[str, msgspec.Meta(max_length=64)]


class ServiceState(enum.StrEnum):
    """What the service as a whole is doing. `starting` is the first generation, no other."""

    STARTING = "starting"
    SERVING = "serving"
    DEPLOYING = "deploying"
    STOPPING = "stopping"


class WorkerState(enum.StrEnum):
    """What a slot's worker is doing. In `backoff` there is none: the next one starts later. In
    `closed` there is none, as the last one has exited with a code that forbids another.

    `draining`: it goes on serving, but connections are steered past it; it is stopped next.
    """

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    KILLED = "killed"
    BACKOFF = "backoff"
    CLOSED = "closed"


class ListenerStatus(msgspec.Struct, frozen=True):
    """`fd` is the descriptor at which workers find it."""

    name: str
    address: str
    fd: int


class ManagedStatus(msgspec.Struct, frozen=True):
    """A socket that workers have asked for at run time, and the generations of those who have."""

    address: str
    generations: tuple[int, ...]


class DeployStatus(msgspec.Struct, frozen=True):
    """The deploy under way, named by the generation that it brings."""

    generation: int
    requested_by: str
    failures: int = 0
    last_failure: str = ""


class PastDeploy(msgspec.Struct, frozen=True):
    """The deploy that was concluded last."""

    generation: int
    outcome: Outcome
    reason: str
    at: float


class WorkerStatus(msgspec.Struct, frozen=True):
    """One worker, or one slot that waits to start the next (`pid` is null then).

    Workers of a web application tell of their `requests` since they were started, of those in hand
    (`busy`; `doing` is the one that takes longest), and of their `connections`. `drain_seconds` is
    how much longer it may take to drain.
    """

    slot: int
    generation: int
    state: WorkerState
    pid: int | None = None
    uptime_seconds: float | None = None
    restarts: int = 0
    status: str = ""
    last_failure: str = ""
    retry_in_seconds: float | None = None
    kill_in_seconds: float | None = None
    requests: int | None = None
    busy: int | None = None
    connections: int | None = None
    doing: str = ""
    drain_seconds: float | None = None


class AdoptionStatus(msgspec.Struct, frozen=True):
    """What the server found when it took over: so many workers lived on, so many had ended, so many
    processes were killed as nobody wanted them, so many workers were asked for once more.
    """

    at: float
    workers: int
    ended: int
    unwanted: int
    missing: int


class Status(msgspec.Struct, frozen=True):
    """Answer of `GET /v1/status`. `pid` is the main pid, `generation` the one that serves or 0.

    `resting_from`: all workers were stopped (WINCH); a deploy brings so many back. `lame_seconds`:
    the service is to stop, and serves on for so long before it does. `servers` is how
    many server processes the instance has had, `adopted` what the present one found, unless it is
    the first. `log` is the file that output goes to, or `| command`; empty when it is stderr.
    """

    name: str
    pid: int
    version: str
    state: ServiceState
    uptime_seconds: float
    command: tuple[str, ...]
    generation: int
    workers_wanted: int
    listeners: tuple[ListenerStatus, ...] = ()
    passages: tuple[PassageStatus, ...] = ()
    deploy: DeployStatus | None = None
    last_deploy: PastDeploy | None = None
    workers: tuple[WorkerStatus, ...] = ()
    last_event: int = 0
    resting_from: int | None = None
    server_pid: int = 0
    servers: int = 1
    adopted: AdoptionStatus | None = None
    lame_seconds: float | None = None
    log: str = ""
    managed: tuple[ManagedStatus, ...] = ()


class ReloadRequest(msgspec.Struct, frozen=True):
    """With `wait` the answer is a `ReloadOutcome`, otherwise a `ReloadAccepted` at once.

    `immediate`: when the new generation serves, workers of the old one are not to finish.
    """

    wait: bool = False
    token: Token = ""
    immediate: bool = False


class ReloadAccepted(msgspec.Struct, frozen=True):
    """202. `generation` will be deployed; its events come after `last_event`."""

    generation: int
    last_event: int


class ReloadOutcome(msgspec.Struct, frozen=True):
    """200 when it succeeded, otherwise 409. `last_words`: what the failed worker wrote last."""

    generation: int
    outcome: Outcome
    reason: str
    last_words: str = ""


class StopRequest(msgspec.Struct, frozen=True):
    """One after another ends the lame-duck phase, if there is one."""

    immediate: bool = False
    token: Token = ""


class StopAccepted(msgspec.Struct, frozen=True):
    """202, an empty object."""


class ScaleRequest(msgspec.Struct, frozen=True):
    workers: Count


class ScaleAccepted(msgspec.Struct, frozen=True):
    """202."""

    workers: int


class UpgradeRequest(msgspec.Struct, frozen=True):
    token: Token = ""


class UpgradeAccepted(msgspec.Struct, frozen=True):
    """202. `upgraded` or `upgrade_failed` comes after the event `last_event`."""

    last_event: int


class ProcessDump(msgspec.Struct, frozen=True):
    """Where a process is, in words: stacks of threads and tasks, memory."""

    name: str
    pid: int
    text: str


class Dump(msgspec.Struct, frozen=True):
    """Answer of `POST /v1/dump`, of all processes of the instance. The log has it too."""

    processes: tuple[ProcessDump, ...]


class ConfigureRequest(msgspec.Struct, frozen=True):
    """With `wait` the answer is a `ConfigureOutcome`, otherwise a `ConfigureAccepted` at once."""

    wait: bool = False
    token: Token = ""


class ConfigureAccepted(msgspec.Struct, frozen=True):
    """202. The configuration is read anew; `configured` or `configure_failed` of this `inquiry`
    comes after the event `last_event`.
    """

    inquiry: int
    last_event: int


class ConfigureOutcome(msgspec.Struct, frozen=True):
    """200, or 409 with an `error`: the configuration is wrong, and the one that there was goes on.

    `is_new`: workers have another one now. Of its values that are settings, `taken` hold now,
    `waiting` say what they need, `overridden` were given on the command line.
    """

    inquiry: int
    generation: int
    error: str = ""
    details: str = ""
    is_new: bool = False
    taken: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    overridden: tuple[str, ...] = ()


class Problem(msgspec.Struct, frozen=True):
    """Body of every answer that refuses the request, 400, 404, 405, 409, 413: one line."""

    error: str


class Record(msgspec.Struct, frozen=True):
    """One event as `GET /v1/events` tells it. `fields` are the event's own.

    On the wire it is one flat object: `id`, `time`, `type`, `text` and the event's fields.
    """

    id: int
    time: float
    type: str
    text: str
    fields: Mapping[str, Any] = {}


_OWN_KEYS = ("id", "time", "type", "text")


def record_of(event: Event, number: int, time: float, text: str) -> Record:
    """Make the record of `event`; `text` is the sentence that people read."""
    fields = msgspec.to_builtins(event)
    kind = fields.pop("type")
    return Record(number, time, kind, text, fields)


def encode_frame(record: Record) -> bytes:
    """One server-sent event (HTML Living Standard §9.2); the JSON has no line breaks in it."""
    data = encode_record(record)
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (record.id, record.type.encode(), data)


def encode_position(number: int) -> bytes:
    """A server-sent event that tells nothing but where the reader is: after event `number`."""
    return b"id: %d\n\n" % number


def encode_record(record: Record) -> bytes:
    """The record as flat JSON. A field of the event never hides one of the record's own."""
    own = {key: getattr(record, key) for key in _OWN_KEYS}
    return msgspec.json.encode(own | {k: v for k, v in record.fields.items() if k not in own})


def decode_record(data: bytes) -> Record:
    """Read what `encode_record` wrote. Raises msgspec.MsgspecError."""
    flat = msgspec.json.decode(data, type=dict[str, Any])
    own = {key: flat.pop(key) for key in _OWN_KEYS if key in flat}
    return msgspec.convert({**own, "fields": flat}, type=Record)
