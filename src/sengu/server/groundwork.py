"""The groundwork: what is made for a generation before its first worker, and who makes it.

Imported by `server.instance`, `server.execute` and `server.adopt`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from sengu.config.boot import Boot
from sengu.model.observed import Observed
from sengu.posix.loop import Loop
from sengu.server.children import Children
from sengu.server.configurations import Configurations, Surroundings
from sengu.server.crew import Crew
from sengu.server.environment import Environments
from sengu.server.fork_plan import Context
from sengu.server.forkservers import ForkServers
from sengu.server.link import Link
from sengu.server.pre_deploy import Steps, Tools
from sengu.server.stage import Stage

if TYPE_CHECKING:
    from sengu.config.tuning import Tuner


class Groundwork(msgspec.Struct, frozen=True):
    """Who makes it. Without `configurations` there are none."""

    steps: Steps
    environments: Environments
    fork_servers: ForkServers
    configurations: Configurations


class Site(msgspec.Struct, frozen=True):
    """Where it is laid."""

    loop: Loop
    link: Link
    children: Children
    stage: Stage
    crew: Crew
    observed: Callable[[], Observed]


def lay_groundwork(boot: Boot, site: Site, tuner: "Tuner | None") -> Groundwork:
    """Put them together."""
    loop, link, children, stage, crew = site.loop, site.link, site.children, site.stage, site.crew
    births = link.take("births")
    assert births is not None  # the supervisor has made it
    environments = Environments(link, boot.env_dir)
    around = Surroundings(link, environments, site.observed, crew.post, crew.tell_configured)
    configurations = Configurations(tuner, around)
    fork_servers = ForkServers(
        Context(loop, link, children, stage, crew, births.fd, configurations)
    )
    steps = Steps(Tools(boot.service, loop, children, stage, environments, crew))
    return Groundwork(steps, environments, fork_servers, configurations)
