"""From values to the boot document of `sengu start`, with every check that needs more than one.

What any service needs is in `config.launch`. Imported by `cli.start`.
"""

from collections.abc import Mapping, Sequence

import msgspec

from sengu.config.container import contain, container_from, given_variables, shown_command
from sengu.config.inherit import is_stream
from sengu.config.launch import Launch, look_around, make_launch, sockets_for
from sengu.config.policies import (
    boot_policy,
    drain_seconds,
    restart_policy,
    start_policy,
    stop_policy,
    strategy,
)
from sengu.config.programs import check_program
from sengu.config.self_bound import self_bound
from sengu.config.setting import Values
from sengu.config.settings import common
from sengu.config.settings import start as known
from sengu.config.sockets import check_listeners, check_reuseport
from sengu.errors import UsageError
from sengu.model.address import InetAddress, SelfBound, Sockets
from sengu.model.service import (
    OnServerLoss,
    ReadyAfterDelay,
    ReadyByJoin,
    ReadyByProbe,
    ServiceSpec,
)


def assemble(values: Values, command: Sequence[str], environ: Mapping[str, str]) -> Launch:
    """Check everything and put it together. Raises UsageError."""
    if not command and not values.has(known.CONTAINER):
        raise UsageError("no command to run was given; add it: sengu start [OPTIONS] -- COMMAND")
    around = look_around(values, {**environ, **given_variables(values)})
    container = container_from(values, command, around)
    if container is None:
        search_path = around.workers_environment.get("PATH")
        check_program(command[0], search_path, around.workers_directory)
    else:
        command = shown_command(container)
    bound = self_bound(values)
    service = _service_spec(values, around.name, command, bound)
    if container is not None:
        service = contain(service, container, pulls=values[known.PULL])
    ports, paths = values[known.PORT], values[known.PATH]
    check_listeners({known.PORT.flag: ports, known.PATH.flag: paths})
    sockets = msgspec.structs.replace(sockets_for(values, ports + paths, environ), self_bound=bound)
    check_reuseport(sockets)
    _check_probe(service, sockets)
    return make_launch(values, around, service, sockets)


def _service_spec(
    values: Values, name: str, command: Sequence[str], bound: SelfBound | None
) -> ServiceSpec:
    readiness = values[known.READY] or ReadyAfterDelay(values[common.INTERVAL])
    if bound is not None:
        readiness = ReadyByJoin()
    return ServiceSpec(
        name=name,
        command=tuple(command),
        workers=values[known.WORKERS],
        boot=boot_policy(values, readiness),
        retire=stop_policy(values, values[known.SIGNAL_ON_HUP]),
        stop=stop_policy(values, values[known.SIGNAL_ON_TERM]),
        restart=restart_policy(values),
        strategy=strategy(values),
        watchdog_seconds=values[known.WATCHDOG],
        on_server_loss=OnServerLoss(values[known.ON_SERVER_LOSS]),
        drain_seconds=drain_seconds(values, binds_itself=bound is not None),
        lame_duck_seconds=values[common.LAME_DUCK],
        start=start_policy(values),
    )


def _check_probe(service: ServiceSpec, sockets: Sockets) -> None:
    if not isinstance(service.boot.readiness, ReadyByProbe):
        return
    streams = [
        spec
        for spec in sockets.listeners
        if not (isinstance(spec.address, InetAddress) and spec.address.udp)
    ]
    if not streams and not any(is_stream(inherited.fd) for inherited in sockets.inherited):
        raise UsageError(
            "--ready tcp and --ready http:PATH connect to a listener, and there is none that "
            "takes connections; add --port or --path, or use --ready notify or delay:SECONDS"
        )
