"""Composes the policies: the first that has something to do is heard, then the world is new.

So no policy has to know what another has just ordered: the server carries the actions out, feeds
the resulting events to `reduce`, and plans again until nothing is left to do.
"""

import msgspec

from sengu.model.actions import AnyAction
from sengu.model.observed import Observed
from sengu.model.service import ServiceSpec
from sengu.planner import (
    configure,
    deploy,
    drain,
    liveness,
    populate,
    recycle,
    retire,
    shutdown,
    steps,
)
from sengu.planner.agenda import Agenda


class Plan(msgspec.Struct, frozen=True):
    """Actions to do now; and when to plan again though nothing has happened (None: never)."""

    actions: tuple[AnyAction, ...]
    wake_at: float | None


_RUNNING = (
    liveness.plan,
    steps.plan,
    drain.plan,
    configure.plan,
    deploy.plan,
    populate.plan,
    retire.plan,
    recycle.plan,
)
_STOPPING = (liveness.plan, steps.plan, shutdown.plan)


def plan(spec: ServiceSpec, observed: Observed, now: float) -> Plan:
    """Decide what to do about `observed` at `now` (monotonic seconds)."""
    agenda = Agenda(spec, observed, now)
    for policy in _STOPPING if observed.stop else _RUNNING:
        policy(spec, observed, agenda)
        if agenda.actions:
            break
    return Plan(tuple(agenda.actions), agenda.wake_at)
