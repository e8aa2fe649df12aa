"""Short ways to say what the fake world has done and how it stands, for readable claims."""

from collections.abc import Iterator

from sengu.model import actions as do
from sengu.model.actions import AnyAction
from sengu.model.observed import Observed, Phase, Worker
from sengu.model.service import ServiceSpec
from tests.unit.support_steps import Step, hup
from tests.unit.support_world import Change, Quiet, World


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
    return [_deed(line.action, line.before) for line in changes(world) if line.action is not None]


def _deed(action: AnyAction, before: Observed) -> str:  # noqa: PLR0912
    match action:
        case do.StartWorker():
            return f"start {action.generation}/{action.slot}"
        case do.DrainWorker():
            return f"drain {_place(action.worker, before)}"
        case do.StopWorker():
            return f"stop {_place(action.worker, before)}"
        case do.UrgeWorker():
            return f"urge {_place(action.worker, before)}"
        case do.KillWorker():
            return f"kill {_place(action.worker, before)}"
        case do.DeclareReady():
            return f"declare {_place(action.worker, before)}"
        case do.ConcludeDeploy():
            return f"{action.generation} {action.outcome}"
        case do.AskConfiguration():
            return f"configure {action.generation}"
        case do.AbandonInquiry():
            return f"give up configuring {action.generation}"
        case do.StartStep():
            return f"run {action.generation}/{action.step}"
        case do.StopStep():
            return f"stop the command of {action.generation}"
        case do.KillStep():
            return f"kill the command of {action.generation}"
        case do.PrepareGeneration():
            return f"prepare {action.generation}"
        case do.AbandonPreparation():
            return f"abandon {action.generation}"
        case do.RetireGeneration():
            return f"retire {action.generation}"
        case do.RequestDeploy():
            return f"deploy by {action.by}"
        case do.RequestStop():
            return f"end with {action.exit_code}"
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
    actions = [change.action for change in changes(world)]
    return [action for action in actions if isinstance(action, do.ConcludeDeploy)]


def start_moments(world: World) -> list[float]:
    """When workers were started, in seconds since the first line of the record."""
    lines = list(changes(world))
    return [line.at - lines[0].at for line in lines if isinstance(line.action, do.StartWorker)]


def changes(world: World) -> Iterator[Change]:
    """The facts in the record."""
    return (line for line in world.record if isinstance(line, Change))


def quiet_moments(world: World) -> Iterator[Quiet]:
    """When the planner had nothing left to say."""
    return (line for line in world.record if isinstance(line, Quiet))


def chosen_stops(
    world: World,
) -> Iterator[tuple[Change, do.StopWorker | do.DrainWorker, Worker]]:
    """Workers that were given up though neither they nor the service had to be.

    Who drains was given up before, and is asked to stop then.
    """
    for change in changes(world):
        action = change.action
        if isinstance(action, do.StopWorker) and action.failed:
            continue
        if isinstance(action, do.StopWorker | do.DrainWorker) and not change.before.stop:
            worker = change.before.workers[action.worker]
            if worker.phase is not Phase.DRAINING:
                yield change, action, worker


def has_ready_successor(observed: Observed, worker: Worker) -> bool:
    """Whether it is worn, and a later worker of its slot and generation is ready."""
    return bool(worker.worn) and any(
        other.slot == worker.slot and other.id > worker.id and other.phase is Phase.READY
        for other in observed.workers_of(worker.generation)
    )


def ready_slots(observed: Observed, generation: int) -> set[int]:
    """Slots in which a worker of `generation` is ready."""
    workers = observed.workers_of(generation)
    return {worker.slot for worker in workers if worker.phase is Phase.READY}
