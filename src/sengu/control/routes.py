"""What the control API does: a request in, an answer out. No sockets, no HTTP framing here."""

import re
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar
from urllib.parse import parse_qs, urlsplit

import msgspec

from sengu.control import api
from sengu.model.observed import Outcome

_T = TypeVar("_T")
_EVENT_ID = re.compile(r"[0-9]{1,18}")


class Service(Protocol):
    """What the API asks of the server."""

    def status(self) -> api.Status: ...
    def reload(self, immediate: bool, by: str, token: str) -> api.ReloadAccepted: ...
    def await_outcome(self, generation: int, tell: Callable[[api.ReloadOutcome], None]) -> None: ...
    def scale(self, workers: int, by: str) -> None: ...
    def stop(self, immediate: bool, by: str, token: str) -> None: ...
    def dump(self, tell: Callable[[api.Dump], None]) -> None: ...
    def upgrade(self, by: str, token: str) -> api.UpgradeAccepted: ...
    def configure(self, by: str, token: str) -> api.ConfigureAccepted: ...
    def await_configured(
        self, inquiry: int, tell: Callable[[api.ConfigureOutcome], None]
    ) -> None: ...
    def events_since(self, number: int) -> Iterable[api.Record]: ...
    def follow_events(self, reader: Callable[[api.Record], None]) -> Callable[[], None]: ...


class Answer(msgspec.Struct, frozen=True):
    """A complete answer."""

    status: int
    body: bytes
    allow: str = ""


class Later(msgspec.Struct, frozen=True):
    """The answer comes when the deploy of `generation` is concluded."""

    generation: int


class Soon(msgspec.Struct, frozen=True):
    """The answer comes when what `ask` begins is done; it gets who is then to be called."""

    ask: Callable[[Callable[[Answer], None]], None]


class Stream(msgspec.Struct, frozen=True):
    """Server-sent events: those kept since `since` (None: none of them), then new ones."""

    since: int | None
    follow: bool


class Refused(Exception):
    """The request can not be served; carries the answer's status and one line for people."""

    def __init__(self, status: int, error: str, allow: str = "") -> None:
        super().__init__(error)
        self.answer = Answer(status, msgspec.json.encode(api.Problem(error)), allow)


def handle(
    service: Service, method: str, target: str, body: bytes
) -> Answer | Later | Soon | Stream:
    """Serve one request. Raises Refused."""
    try:
        url = urlsplit(target)
    except ValueError as error:  # such as brackets around what is no IPv6 address
        raise Refused(400, f"{target} is not a target: {error}") from error
    route = _ROUTES.get(url.path)
    if route is None:
        raise Refused(404, f"there is no {url.path}; there are {', '.join(_ROUTES)}")
    allowed, serve = route
    if method != allowed:
        raise Refused(405, f"{url.path} takes {allowed}, not {method}", allowed)
    return serve(service, url.query, body)


def outcome_answer(outcome: api.ReloadOutcome | api.ConfigureOutcome) -> Answer:
    if isinstance(outcome, api.ConfigureOutcome):
        status = 409 if outcome.error else 200
    else:
        status = 200 if outcome.outcome is Outcome.SUCCEEDED else 409
    return Answer(status, msgspec.json.encode(outcome))


def _status(service: Service, _query: str, _body: bytes) -> Answer:
    return Answer(200, msgspec.json.encode(service.status()))


def _reload(service: Service, _query: str, body: bytes) -> Answer | Later:
    request = _decode(body or b"{}", api.ReloadRequest)
    accepted = service.reload(request.immediate, "the control API", request.token)
    if request.wait:
        return Later(accepted.generation)
    return Answer(202, msgspec.json.encode(accepted))


def _stop(service: Service, _query: str, body: bytes) -> Answer:
    request = _decode(body or b"{}", api.StopRequest)
    service.stop(request.immediate, "the control API", request.token)
    return Answer(202, msgspec.json.encode(api.StopAccepted()))


def _scale(service: Service, _query: str, body: bytes) -> Answer:
    request = _decode(body, api.ScaleRequest)
    service.scale(request.workers, "the control API")
    return Answer(202, msgspec.json.encode(api.ScaleAccepted(request.workers)))


def _upgrade(service: Service, _query: str, body: bytes) -> Answer:
    request = _decode(body or b"{}", api.UpgradeRequest)
    accepted = service.upgrade("the control API", request.token)
    return Answer(202, msgspec.json.encode(accepted))


def _dump(service: Service, _query: str, _body: bytes) -> Soon:
    return Soon(
        lambda answer: service.dump(lambda dump: answer(Answer(200, msgspec.json.encode(dump))))
    )


def _configure(service: Service, _query: str, body: bytes) -> Answer | Soon:
    request = _decode(body or b"{}", api.ConfigureRequest)
    accepted = service.configure("the control API", request.token)
    if request.wait:
        return Soon(
            lambda answer: service.await_configured(
                accepted.inquiry, lambda outcome: answer(outcome_answer(outcome))
            )
        )
    return Answer(202, msgspec.json.encode(accepted))


def _events(_service: Service, query: str, _body: bytes) -> Stream:
    values = {key: found[-1] for key, found in parse_qs(query).items()}
    since = values.get("since")
    if since is not None and not _EVENT_ID.fullmatch(since):
        raise Refused(400, f"since={since} is not the id of an event; write a number")
    return Stream(None if since is None else int(since), values.get("follow") != "false")


def _decode(body: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:  # brackets a thousand deep
        raise Refused(400, f"the request's body is not what is expected: {error}") from error


_ROUTES = {
    api.STATUS_PATH: ("GET", _status),
    api.RELOAD_PATH: ("POST", _reload),
    api.STOP_PATH: ("POST", _stop),
    api.SCALE_PATH: ("POST", _scale),
    api.UPGRADE_PATH: ("POST", _upgrade),
    api.DUMP_PATH: ("POST", _dump),
    api.CONFIGURE_PATH: ("POST", _configure),
    api.EVENTS_PATH: ("GET", _events),
}
