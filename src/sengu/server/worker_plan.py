"""What an executed worker is started with. Imported by `server.crew`."""

from sengu.model.service import OnServerLoss, ServiceSpec
from sengu.server.children import Exec
from sengu.server.containers import worker_command
from sengu.server.environment import Identity, worker_environment
from sengu.server.member import Member
from sengu.server.stage import Stage


def worker_process(spec: ServiceSpec, stage: Stage, member: Member, base: dict[str, str]) -> Exec:
    """`base` is the environment of its generation. Raises OSError."""
    layout = stage.layout(member.action.slot)
    identity = Identity(spec.name, member.action.generation, member.action.slot)
    return Exec(
        argv=worker_command(spec),
        environment=worker_environment(
            base, identity, layout, member.notify.name, spec.watchdog_seconds
        ),
        descriptors={
            0: stage.null_fd,
            1: 1,
            2: 2,
            **member.open_outputs(),
            layout.next_fd: stage.lifeline_fd,
            **layout.descriptors,
        },
        directory=stage.directory,
        death_signal=0 if spec.on_server_loss is OnServerLoss.KEEP else spec.stop.signal,
        names_listen_pid="LISTEN_FDS" in layout.environment,
        has_old_limit=True,
        cgroup=stage.cgroups.assign(member.key),
    )
