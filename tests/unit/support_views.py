"""Short ways to say what the fake world has done and how it stands, for readable claims."""

from sengu.model import actions as do
from sengu.model.actions import AnyAction
from sengu.model.observed import Observed
from sengu.model.service import ServiceSpec
from tests.unit.support_steps import Step, hup
from tests.unit.support_world import Change, World


def serving(spec: ServiceSpec, *before: Step) -> World:
    """A world whose first generation is up; what it took to get there is off the record."""
    world = World(spec)
    world.play(*before, hup())
    assert world.observed.current == 1
    world.record.clear()
    return world


def deeds(world: World, *steps: Step) -> list[str]:
    """What is done in the course of `steps`, such as `start 2/0`: slot 0 of generation 2."""
    world.record.clear()
    world.play(*steps)
    return [
        _deed(line.action, line.before)
        for line in world.record
        if isinstance(line, Change) and line.action is not None
    ]


def _deed(action: AnyAction, before: Observed) -> str:
    match action:
        case do.StartWorker():
            return f"start {action.generation}/{action.slot}"
        case do.StopWorker():
            return f"stop {_place(action.worker, before)}"
        case do.KillWorker():
            return f"kill {_place(action.worker, before)}"
        case do.DeclareReady():
            return f"declare {_place(action.worker, before)}"
        case do.ConcludeDeploy():
            return f"{action.generation} {action.outcome}"
        case do.PrepareGeneration():
            return f"prepare {action.generation}"
        case do.RetireGeneration():
            return f"retire {action.generation}"
        case do.RequestDeploy():
            return f"deploy by {action.by}"
        case do.FinishService():
            return "finish"


def _place(worker: int, observed: Observed) -> str:
    return f"{observed.workers[worker].generation}/{observed.workers[worker].slot}"


def crew(world: World) -> dict[str, str]:
    """All workers by generation and slot, such as `{"1/0": "ready"}`."""
    return {
        f"{worker.generation}/{worker.slot}": worker.phase.value
        for worker in world.observed.workers.values()
    }


def conclusions(world: World) -> list[do.ConcludeDeploy]:
    """The ends of deploys in the record."""
    actions = [line.action for line in world.record if isinstance(line, Change)]
    return [action for action in actions if isinstance(action, do.ConcludeDeploy)]


def start_moments(world: World) -> list[float]:
    """When workers were started, in seconds since the first line of the record."""
    changes = [line for line in world.record if isinstance(line, Change)]
    return [line.at - changes[0].at for line in changes if isinstance(line.action, do.StartWorker)]
