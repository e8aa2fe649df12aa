"""What holds of deploys, generations and workers in every history, whatever fails and whenever."""

from collections import Counter

from sengu.model import actions as do
from sengu.model import events as ev
from sengu.model.observed import Outcome
from sengu.planner import reduce
from tests.unit.support_histories import in_every_history
from tests.unit.support_steps import Wait, stop, stop_seconds
from tests.unit.support_views import changes, chosen_stops, ready_slots
from tests.unit.support_world import World

# --- their end ---


@in_every_history
def test_a_deploy_succeeds_only_when_all_its_workers_are_ready(world: World) -> None:
    for change in changes(world):
        action = change.action
        if isinstance(action, do.ConcludeDeploy) and action.outcome is Outcome.SUCCEEDED:
            ready = ready_slots(change.before, action.generation)
            assert ready >= set(range(change.before.wanted))


@in_every_history
def test_a_deploy_that_does_not_succeed_leaves_the_serving_generation_alone(world: World) -> None:
    for change in changes(world):
        if change.before.current != change.after.current:
            assert isinstance(change.action, do.ConcludeDeploy)
            assert change.action.outcome is Outcome.SUCCEEDED
            assert change.action.generation == change.after.current


def _is_final(world: World, fact: object) -> bool:
    return isinstance(fact, ev.WorkerExited) and fact.exit_code in world.spec.restart.final_codes


@in_every_history
def test_a_deploy_is_given_up_only_after_as_many_failures_as_it_has_attempts(world: World) -> None:
    """But for one that no further attempt can mend."""
    failures: Counter[int] = Counter()
    for change in changes(world):
        match change.fact:
            case ev.GenerationFailed(generation):
                failures[generation] = world.spec.boot.attempts
            case ev.StepEnded(generation) if change.after.deploy != change.before.deploy:
                failures[generation] = world.spec.boot.attempts
            case ev.StartFailed(generation):
                failures[generation] += 1
            case ev.WorkerStopping(worker, failed=True) | ev.WorkerExited(worker):
                if worker in change.before.workers and change.before.workers[worker].is_wanted:
                    failures[change.before.workers[worker].generation] += 1
                if _is_final(world, change.fact):
                    failures[change.before.workers[worker].generation] = world.spec.boot.attempts
            case ev.DeployConcluded(generation, outcome) if not change.before.stop:
                if outcome in (Outcome.ABORTED, Outcome.ROLLED_BACK):
                    assert failures[generation] >= world.spec.boot.attempts


@in_every_history
def test_a_deploy_is_rolled_back_if_it_had_stopped_old_workers_and_else_aborted(
    world: World,
) -> None:
    touched = set()
    for change, _action, worker in chosen_stops(world):
        before = change.before
        serves = worker.generation == before.current and worker.slot < before.wanted
        if serves and before.deploy is not None:
            touched.add(before.deploy.generation)
    for change in changes(world):
        action = change.action
        if isinstance(action, do.ConcludeDeploy) and not change.before.stop:
            if action.outcome is Outcome.ROLLED_BACK:
                assert action.generation in touched
            elif action.outcome is Outcome.ABORTED:
                assert action.generation not in touched


@in_every_history
def test_every_deploy_is_concluded_exactly_once(world: World) -> None:
    asked: list[int] = []
    for change in changes(world):
        if change.after.last_generation > change.before.last_generation:
            asked.append(change.after.last_generation)
    absence_seconds = world.absence_seconds
    world.play(stop(), Wait(stop_seconds(world.spec) + absence_seconds))
    concluded = Counter(
        change.action.generation
        for change in changes(world)
        if isinstance(change.action, do.ConcludeDeploy)
    )
    assert concluded == Counter(asked)


@in_every_history
def test_the_serving_generation_is_never_replaced_by_an_older_one(world: World) -> None:
    for change in changes(world):
        assert change.after.current >= change.before.current
        assert change.after.current <= change.after.last_generation


@in_every_history
def test_generations_are_numbered_one_by_one(world: World) -> None:
    for change in changes(world):
        step = change.after.last_generation - change.before.last_generation
        assert step == (isinstance(change.fact, ev.DeployRequested) and not change.before.stop)


# --- no confusion ---


@in_every_history
def test_a_slot_of_a_generation_has_two_wanted_workers_only_to_replace_a_worn_one(
    world: World,
) -> None:
    for change in changes(world):
        eldest: dict[tuple[int, int], list[str]] = {}
        for worker in sorted(change.after.workers.values(), key=lambda worker: worker.id):
            if worker.is_wanted:
                eldest.setdefault((worker.generation, worker.slot), []).append(worker.worn)
        for worn in eldest.values():
            assert len(worn) == 1 or (len(worn) == 2 and worn[0])


@in_every_history
def test_no_worker_id_is_used_twice(world: World) -> None:
    facts = [change.fact for change in changes(world)]
    asked = [fact.worker for fact in facts if isinstance(fact, ev.WorkerRequested)]
    assert asked == sorted(set(asked))
    born = [fact.worker for fact in facts if isinstance(fact, ev.WorkerStarted)]
    assert len(born) == len(set(born))


@in_every_history
def test_facts_about_workers_that_are_gone_change_nothing(world: World) -> None:
    gone = world.observed.next_worker_id + 7
    late = (
        ev.WorkerReady(gone, "late"),
        ev.WorkerBeat(gone),
        ev.WorkerSaid(gone, "late"),
        ev.WorkerOverdue(gone, "late"),
        ev.WorkerWorn(gone, "late"),
        ev.WorkerDraining(gone, 1.0, "late"),
        ev.WorkerDrained(gone, "late"),
        ev.WorkerStopping(gone, 15, 1.0, "late", failed=True),
        ev.WorkerKilled(gone, "late"),
        ev.WorkerExited(gone, "late"),
        ev.GenerationLost(world.observed.last_generation + 7, "late"),
        ev.GenerationFailed(world.observed.last_generation + 7, "late"),
        ev.StartFailed(world.observed.last_generation + 7, 0, "late"),
    )
    for fact in late:
        assert reduce(world.spec, world.observed, fact, world.now) == world.observed
