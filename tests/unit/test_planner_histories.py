"""What holds in every history, whatever fails and whenever. A failing one is printed as a story."""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from sengu.model import actions as do
from sengu.model import events as ev
from sengu.model.observed import Observed, Outcome, Phase, Slot, Worker
from sengu.model.service import Rolling, ServiceSpec
from sengu.planner import plan, reduce
from tests.unit.support_histories import in_every_history
from tests.unit.support_steps import Heal, Wait, hup, make_spec, stop
from tests.unit.support_world import Change, Quiet, World


def _changes(world: World) -> Iterator[Change]:
    return (line for line in world.record if isinstance(line, Change))


def _quiet(world: World) -> Iterator[Quiet]:
    return (line for line in world.record if isinstance(line, Quiet))


def _chosen_stops(world: World) -> Iterator[tuple[Change, do.StopWorker, Worker]]:
    """Workers that were asked to stop though neither they nor the service had to."""
    for change in _changes(world):
        action = change.action
        if isinstance(action, do.StopWorker) and not action.failed and not change.before.stop:
            yield change, action, change.before.workers[action.worker]


def _least_ready(spec: ServiceSpec, observed: Observed) -> int:
    if isinstance(spec.strategy, Rolling) and observed.deploy is not None:
        return observed.wanted - spec.strategy.max_unavailable
    return observed.wanted


def _ready_slots(observed: Observed, generation: int) -> set[int]:
    workers = observed.workers_of(generation)
    return {worker.slot for worker in workers if worker.phase is Phase.READY}


# --- the service stays whole ---


@in_every_history
def test_a_ready_worker_is_given_up_only_while_enough_others_are_ready(world: World) -> None:
    for change, action, worker in _chosen_stops(world):
        if worker.phase is Phase.READY:
            least = _least_ready(world.spec, change.before)
            assert change.after.ready_count() >= least, action


@in_every_history
def test_no_old_worker_is_stopped_for_a_deploy_before_a_new_one_is_ready(world: World) -> None:
    for change, action, worker in _chosen_stops(world):
        before = change.before
        if worker.generation == before.current and worker.slot < before.wanted:
            assert isinstance(world.spec.strategy, Rolling), action
            assert before.deploy is not None, action
            assert _ready_slots(before, before.deploy.generation), action


@in_every_history
def test_rolling_without_unavailable_stops_only_old_workers_whose_successor_is_ready(
    world: World,
) -> None:
    if not isinstance(world.spec.strategy, Rolling) or world.spec.strategy.max_unavailable:
        return
    for change, action, worker in _chosen_stops(world):
        before = change.before
        if worker.generation == before.current and worker.slot < before.wanted:
            assert before.deploy is not None
            assert worker.slot in _ready_slots(before, before.deploy.generation), action


@in_every_history
def test_a_deploy_succeeds_only_when_all_its_workers_are_ready(world: World) -> None:
    for change in _changes(world):
        action = change.action
        if isinstance(action, do.ConcludeDeploy) and action.outcome is Outcome.SUCCEEDED:
            ready = _ready_slots(change.before, action.generation)
            assert ready >= set(range(change.before.wanted))


@in_every_history
def test_a_ready_worker_of_the_serving_generation_is_not_stopped_for_the_crashes_of_others(
    world: World,
) -> None:
    for change, action, worker in _chosen_stops(world):
        before = change.before
        serves = worker.generation == before.current and worker.slot < before.wanted
        if worker.phase is Phase.READY and serves:
            assert before.deploy is not None, action
            assert action.reason == f"rolling to generation {before.deploy.generation}"


# --- a crash loop is throttled ---


@in_every_history
def test_crashing_slots_are_restarted_no_faster_than_the_back_off_allows(world: World) -> None:
    restart = world.spec.restart
    for moments in _restarts(world):
        for first, last in itertools.combinations(range(len(moments)), 2):
            span = moments[last] - moments[first]
            if span < restart.stable_seconds:
                # Between the first and the last of n restarts lie n-1 pauses, of which a stable
                # worker's end may have made the first one short.
                pauses = [restart.delay_seconds(2 + n) for n in range(last - first - 1)]
                assert span >= sum(pauses) - 1e-6, moments


def _restarts(world: World) -> Iterable[list[float]]:
    """For each slot, when workers were started in it because the former one had failed."""
    restarts: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
    accounts: dict[tuple[int, int], Slot] = {}
    for change in _changes(world):
        if isinstance(change.action, do.StartWorker):
            key = (change.action.generation, change.action.slot)
            account = change.before.slot(*key)
            if account != accounts.get(key, Slot()):
                restarts[key].append(change.at)
            accounts[key] = account
    return restarts.values()


# --- who is asked to stop goes ---


@in_every_history
def test_nobody_asked_to_stop_outlives_the_deadline(world: World) -> None:
    for line in _quiet(world):
        for worker in line.observed.workers.values():
            if worker.phase is Phase.STOPPING:
                assert worker.kill_at is not None
                assert worker.kill_at > line.at


@in_every_history
def test_no_deadline_is_ever_moved_later(world: World) -> None:
    for change in _changes(world):
        for worker in change.after.workers.values():
            known = change.before.workers.get(worker.id)
            if known and known.kill_at is not None:
                assert worker.kill_at is not None
                assert worker.kill_at <= known.kill_at


@in_every_history
def test_nobody_asked_to_stop_comes_back(world: World) -> None:
    rank = list(Phase)
    for change in _changes(world):
        for worker in change.after.workers.values():
            known = change.before.workers.get(worker.id)
            assert known is None or rank.index(known.phase) <= rank.index(worker.phase)


# --- deploys ---


@in_every_history
def test_a_deploy_that_does_not_succeed_leaves_the_serving_generation_alone(world: World) -> None:
    for change in _changes(world):
        if change.before.current != change.after.current:
            assert isinstance(change.action, do.ConcludeDeploy)
            assert change.action.outcome is Outcome.SUCCEEDED
            assert change.action.generation == change.after.current


@in_every_history
def test_a_deploy_is_given_up_only_after_as_many_failures_as_it_has_attempts(world: World) -> None:
    failures: Counter[int] = Counter()
    for change in _changes(world):
        match change.fact:
            case ev.GenerationFailed(generation):
                failures[generation] = world.spec.boot.attempts
            case ev.StartFailed(generation):
                failures[generation] += 1
            case ev.WorkerStopping(worker, failed=True) | ev.WorkerExited(worker):
                if change.before.workers[worker].is_wanted:
                    failures[change.before.workers[worker].generation] += 1
            case ev.DeployConcluded(generation, outcome) if not change.before.stop:
                if outcome in (Outcome.ABORTED, Outcome.ROLLED_BACK):
                    assert failures[generation] >= world.spec.boot.attempts


@in_every_history
def test_a_deploy_is_rolled_back_if_it_had_stopped_old_workers_and_else_aborted(
    world: World,
) -> None:
    touched = set()
    for change, _action, worker in _chosen_stops(world):
        before = change.before
        serves = worker.generation == before.current and worker.slot < before.wanted
        if serves and before.deploy is not None:
            touched.add(before.deploy.generation)
    for change in _changes(world):
        action = change.action
        if isinstance(action, do.ConcludeDeploy) and not change.before.stop:
            if action.outcome is Outcome.ROLLED_BACK:
                assert action.generation in touched
            elif action.outcome is Outcome.ABORTED:
                assert action.generation not in touched


@in_every_history
def test_every_deploy_is_concluded_exactly_once(world: World) -> None:
    asked: list[int] = []
    for change in _changes(world):
        if change.after.last_generation > change.before.last_generation:
            asked.append(change.after.last_generation)
    world.play(stop(), Wait(world.spec.stop.grace_seconds))
    concluded = Counter(
        change.action.generation
        for change in _changes(world)
        if isinstance(change.action, do.ConcludeDeploy)
    )
    assert concluded == Counter(asked)


@in_every_history
def test_the_serving_generation_is_never_replaced_by_an_older_one(world: World) -> None:
    for change in _changes(world):
        assert change.after.current >= change.before.current
        assert change.after.current <= change.after.last_generation


@in_every_history
def test_generations_are_numbered_one_by_one(world: World) -> None:
    for change in _changes(world):
        step = change.after.last_generation - change.before.last_generation
        assert step == (isinstance(change.fact, ev.DeployRequested) and not change.before.stop)


# --- no confusion ---


@in_every_history
def test_a_slot_of_a_generation_never_has_two_wanted_workers(world: World) -> None:
    for change in _changes(world):
        wanted = [(w.generation, w.slot) for w in change.after.workers.values() if w.is_wanted]
        assert len(wanted) == len(set(wanted))


@in_every_history
def test_no_worker_id_is_used_twice(world: World) -> None:
    ids = [c.fact.worker for c in _changes(world) if isinstance(c.fact, ev.WorkerStarted)]
    assert ids == sorted(set(ids))


@in_every_history
def test_facts_about_workers_that_are_gone_change_nothing(world: World) -> None:
    gone = world.observed.next_worker_id + 7
    late = (
        ev.WorkerReady(gone, "late"),
        ev.WorkerBeat(gone),
        ev.WorkerSaid(gone, "late"),
        ev.WorkerStopping(gone, 15, 1.0, "late", failed=True),
        ev.WorkerKilled(gone, "late"),
        ev.WorkerExited(gone, "late"),
        ev.StartFailed(world.observed.last_generation + 7, 0, "late"),
    )
    for fact in late:
        assert reduce(world.spec, world.observed, fact, world.now) == world.observed


# --- when to look again ---


@in_every_history
def test_when_nothing_changes_there_is_nothing_to_do_until_the_moment_named(world: World) -> None:
    for line in _quiet(world):
        wake_at = math.inf if line.wake_at is None else line.wake_at
        assert wake_at > line.at
        last = min(math.nextafter(wake_at, 0.0), line.at + 1e6)
        for moment in (line.at, (line.at + last) / 2, last):
            assert not plan(world.spec, line.observed, moment).actions


# --- it comes to a good end ---


def _patience_seconds(world: World) -> float:
    """After that long without a fault nothing of the past can be left."""
    spec = world.spec
    boot = max(spec.boot.timeout_seconds, 40.0)  # 40: the slowest fate
    stopping = max(spec.retire.grace_seconds, spec.stop.grace_seconds)
    back_off = spec.restart.backoff_max_seconds + spec.restart.stable_seconds
    kill_old_delay = 20.0
    return 10 * (boot + stopping + back_off + kill_old_delay)


@in_every_history
def test_when_faults_cease_the_service_becomes_whole_again(world: World) -> None:
    world.play(Heal(), Wait(_patience_seconds(world)))
    # The last deploy makes an end of automatic ones, which would never come to rest.
    world.play(hup(), Wait(_patience_seconds(world)))
    observed = world.observed
    if observed.stop is not None:  # asked for, or the first deploy had failed
        return
    assert observed.deploy is None
    assert list(observed.generations) == [observed.current]
    assert observed.current == observed.last_generation
    assert {key[0] for key in observed.slots} <= {observed.current}
    workers = list(observed.workers.values())
    assert all(worker.phase is Phase.READY for worker in workers)
    assert sorted(worker.slot for worker in workers) == list(range(observed.wanted))


@in_every_history
def test_a_stop_ends_the_service_within_the_grace_period(world: World) -> None:
    world.play(stop(), Wait(world.spec.stop.grace_seconds))
    assert world.finished is not None
    assert not world.observed.workers


@in_every_history
def test_an_immediate_stop_ends_the_service_at_once(world: World) -> None:
    world.play(stop(immediate=True))
    assert world.finished is not None
    assert not world.observed.workers


def test_thousands_of_deploys_leave_no_trace() -> None:
    world = World(make_spec(), keeps_record=False)
    world.play(hup(), *[hup()] * 2_000)
    first = world.observed
    assert first.current == 2_001
    assert len(first.generations) == 1
    assert len(first.workers) == 2
    assert len(first.slots) <= 2
    assert not first.superseded
