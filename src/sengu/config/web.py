"""From values to the boot document of `sengu serve`, with every check that needs more than one.

What any service needs is in `config.launch`. The application is not imported: that is the fork
server's part, which also knows what it finds then. Imported by `cli.serve`.
"""

import importlib.util
import os
import signal
from collections.abc import Mapping
from typing import Any

import msgspec

from sengu.config.files import check_directory, check_writable
from sengu.config.inherit import is_stream
from sengu.config.kinds import parse_workers
from sengu.config.launch import Launch, Surroundings, look_around, make_launch, sockets_for
from sengu.config.policies import (
    boot_policy,
    drain_seconds,
    restart_policy,
    start_policy,
    stop_policy,
    strategy,
)
from sengu.config.privileges import resolve_privileges
from sengu.config.setting import Setting, Values
from sengu.config.settings import application as shared
from sengu.config.settings import common, requests
from sengu.config.settings import serve as known
from sengu.config.sockets import check_listeners, check_reuseport
from sengu.config.target import check_target
from sengu.config.tls import resolve_tls
from sengu.errors import UsageError
from sengu.model.address import Sockets, parse_listen
from sengu.model.application import Application, Wear
from sengu.model.service import ReadyByNotify, ServiceSpec
from sengu.model.web import AccessLog, Interface, Limits, Timeouts, WebOptions

_LEAST_TIMEOUT_SECONDS = 1.0  # ASGI workers tell once a second
ENGINE = "sengu.http.engine"
_DEFAULT_LISTEN = "127.0.0.1:8000"


def assemble_web(values: Values, target: str | None, environ: Mapping[str, str]) -> Launch:
    """Check everything and put it together. Raises UsageError."""
    target = check_target(target)
    around = look_around(values, environ)
    application = _application(values, target)
    service = _service_spec(values, around, application)
    watched = _watched(values, around)
    return make_launch(values, around, service, _sockets(values, environ), watched)


def _service_spec(values: Values, around: Surroundings, application: Application) -> ServiceSpec:
    return ServiceSpec(
        name=around.name,
        command=(application.target,),
        workers=_workers(values, around.workers_environment),
        boot=boot_policy(values, ReadyByNotify()),
        retire=stop_policy(values, signal.SIGTERM),
        stop=stop_policy(values, signal.SIGQUIT),
        restart=restart_policy(values),
        strategy=strategy(values),
        application=application,
        drain_seconds=drain_seconds(values),
        lame_duck_seconds=values[common.LAME_DUCK],
        start=start_policy(values),
    )


def _application(values: Values, target: str) -> Application:
    options = _options(values, target)
    return Application(
        engine=ENGINE,
        target=target,
        options=msgspec.Raw(msgspec.json.encode(options)),
        lanes=options.threads,
        preload=not values[shared.NO_PRELOAD],
        files=_files(options),
        hooks=values[shared.HOOKS],
        privileges=resolve_privileges(values),
        request_timeout_seconds=_request_timeout(values),
        grace_seconds=values[common.GRACE],
        wear=Wear(
            values[known.MAX_REQUESTS],
            values[shared.MAX_RSS],
            values[shared.MAX_AGE],
            values[shared.JITTER],
        ),
    )


def _request_timeout(values: Values) -> float | None:
    seconds = values[requests.TIMEOUT]
    if 0 < seconds < _LEAST_TIMEOUT_SECONDS:
        raise UsageError(
            f"--timeout {seconds:g} is shorter than workers tell of their progress; "
            f"give at least {_LEAST_TIMEOUT_SECONDS:g}, or 0 for none"
        )
    return seconds or None


def _options(values: Values, target: str) -> WebOptions:
    interface = Interface(values[known.INTERFACE])
    _check_asgi(values, interface)
    return WebOptions(
        target=target,
        interface=interface,
        threads=values[known.THREADS],
        root_path=values[known.ROOT_PATH],
        limits=Limits(
            values[requests.LIMIT_REQUEST_LINE],
            values[requests.LIMIT_REQUEST_FIELDS],
            values[requests.LIMIT_REQUEST_FIELD_SIZE],
            values[requests.LIMIT_BODY],
            values[requests.MAX_CONNECTIONS],
        ),
        timeouts=Timeouts(
            values[requests.HEADER_TIMEOUT],
            values[requests.BODY_TIMEOUT],
            values[requests.KEEP_ALIVE],
        ),
        trusted_proxies=values[requests.TRUSTED_PROXY],
        proxy_protocol=_proxy_protocol(values),
        tls=resolve_tls(values),
        access_log=_access_log(values),
        debug=values[shared.RELOAD],
        health_path=values[known.HEALTH_PATH],
    )


def _check_asgi(values: Values, interface: Interface) -> None:
    if interface is not Interface.ASGI:
        return
    if values[known.THREADS] > 1:
        raise UsageError(
            "--threads is for WSGI: an ASGI application handles many requests in one thread; "
            "leave it out, or give more --workers"
        )
    if importlib.util.find_spec("uvicorn") is None:
        raise UsageError("--interface asgi needs uvicorn; install it: pip install 'sengu[asgi]'")


def _proxy_protocol(values: Values) -> bool:
    if values[requests.PROXY_PROTOCOL] and not values[requests.TRUSTED_PROXY]:
        raise UsageError(
            "--proxy-protocol believes the header of nobody; add --trusted-proxy NETWORK, "
            "the network of your proxies"
        )
    return values[requests.PROXY_PROTOCOL]


def _files(options: WebOptions) -> tuple[str, ...]:
    log = options.access_log
    return () if log is None or log.path == "-" else (log.path,)


def _access_log(values: Values) -> AccessLog | None:
    given = values[known.ACCESS_LOG]
    if given is None:
        _refuse_alone(values, known.ACCESS_LOG_FORMAT, "--access-log FILE")
        return None
    form = values[known.ACCESS_LOG_FORMAT]
    if given == "-":
        return AccessLog(given, form)
    path = os.path.abspath(given)
    check_writable("--access-log", path)
    return AccessLog(path, form)


def _workers(values: Values, environment: Mapping[str, str]) -> int:
    """How many: as the option says, else as platforms say it, else one for each core."""
    given = values[known.WORKERS]
    if given is not None:
        return given
    concurrency = environment.get("WEB_CONCURRENCY", "").strip()
    if concurrency:
        return parse_workers("WEB_CONCURRENCY", concurrency)
    return len(os.sched_getaffinity(0))


def _watched(values: Values, around: Surroundings) -> tuple[str, ...]:
    """Directories in which a change is a deploy."""
    if not values[shared.RELOAD]:
        _refuse_alone(values, shared.RELOAD_DIR, "--reload")
        return ()
    if values[common.DAEMONIZE]:
        raise UsageError("--reload is for development at a terminal; leave out --daemonize")
    given = values[shared.RELOAD_DIR]
    paths = tuple(dict.fromkeys(map(os.path.abspath, given)))
    for path in paths:
        check_directory("--reload-dir", path)
    return paths or (around.workers_directory,)


def _refuse_alone(values: Values, setting: Setting[Any], needed: str) -> None:
    if values.has(setting):
        raise UsageError(f"{setting.flag} is of no use alone; add {needed}, or leave it out")


def _sockets(values: Values, environ: Mapping[str, str]) -> Sockets:
    listeners = values[known.LISTEN]
    check_listeners({known.LISTEN.flag: listeners})
    sockets = sockets_for(values, listeners, environ)
    for inherited in sockets.inherited:
        if not is_stream(inherited.fd):
            raise UsageError(
                f"the socket {inherited.name!r} that was passed at descriptor {inherited.fd} takes "
                "no connections; pass a stream socket"
            )
    if not listeners and not sockets.inherited:
        return msgspec.structs.replace(sockets, listeners=(parse_listen(_DEFAULT_LISTEN),))
    check_reuseport(sockets)
    return sockets
