"""What holds in every history, whatever fails and whenever.

A history that breaks a claim is printed: its service and steps, to be played again, and its story.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable

from sengu.model import actions as do
from sengu.model import events as ev
from sengu.model.observed import Observed, Phase, Slot
from sengu.model.service import ReadyAfterDelay, Rolling, ServiceSpec
from sengu.planner import plan
from tests.unit.support_histories import in_every_history
from tests.unit.support_steps import Heal, Wait, hup, make_spec, stop, stop_seconds
from tests.unit.support_views import (
    changes,
    chosen_stops,
    has_ready_successor,
    quiet_moments,
    ready_slots,
)
from tests.unit.support_world import Change, Quiet, World


def _least_ready(spec: ServiceSpec, observed: Observed) -> int:
    if observed.deploy is None:
        return observed.wanted - len(_closed(observed))
    if isinstance(spec.strategy, Rolling):
        return observed.wanted - spec.strategy.max_unavailable
    return observed.wanted


def _closed(observed: Observed) -> set[int]:
    """Slots of the serving generation that stay empty, as the last one there has ended for good."""
    taken = {worker.slot for worker in observed.workers_of(observed.current) if worker.is_wanted}
    return {
        slot
        for slot in range(observed.wanted)
        if observed.slot(observed.current, slot).is_closed and slot not in taken
    }


# --- the service stays whole ---


@in_every_history
def test_a_ready_worker_is_given_up_only_while_enough_others_are_ready(world: World) -> None:
    for change, action, worker in chosen_stops(world):
        if worker.phase is Phase.READY:
            least = _least_ready(world.spec, change.before)
            assert change.after.ready_count() >= least, action


@in_every_history
def test_no_old_worker_is_stopped_for_a_deploy_before_a_new_one_is_ready(world: World) -> None:
    for change, action, worker in chosen_stops(world):
        before = change.before
        if has_ready_successor(before, worker):
            continue
        if worker.generation == before.current and worker.slot < before.wanted:
            assert isinstance(world.spec.strategy, Rolling), action
            assert before.deploy is not None, action
            assert ready_slots(before, before.deploy.generation), action


@in_every_history
def test_rolling_without_unavailable_stops_only_old_workers_whose_successor_is_ready(
    world: World,
) -> None:
    if not isinstance(world.spec.strategy, Rolling) or world.spec.strategy.max_unavailable:
        return
    for change, action, worker in chosen_stops(world):
        before = change.before
        if has_ready_successor(before, worker):
            continue
        if worker.generation == before.current and worker.slot < before.wanted:
            assert before.deploy is not None
            assert worker.slot in ready_slots(before, before.deploy.generation), action


@in_every_history
def test_a_ready_worker_of_the_serving_generation_is_not_stopped_for_the_crashes_of_others(
    world: World,
) -> None:
    for change, action, worker in chosen_stops(world):
        before = change.before
        serves = worker.generation == before.current and worker.slot < before.wanted
        if worker.phase is Phase.READY and serves and not has_ready_successor(before, worker):
            assert before.deploy is not None, action
            assert action.reason == f"rolling to generation {before.deploy.generation}"


@in_every_history
def test_worn_workers_are_replaced_one_at_a_time(world: World) -> None:
    for line in quiet_moments(world):
        observed = line.observed
        live = [worker for worker in observed.workers_of(observed.current) if worker.is_wanted]
        slots = [worker.slot for worker in live if worker.slot < observed.wanted]
        assert len(slots) - len(set(slots)) <= 1, live


@in_every_history
def test_no_worker_is_started_before_its_generation_is_prepared(world: World) -> None:
    for change in changes(world):
        if isinstance(change.action, do.StartWorker):
            assert change.before.generations[change.action.generation].prepared, change.action


@in_every_history
def test_a_worker_is_ready_by_time_alone_when_its_process_has_lived_so_long(world: World) -> None:
    born: dict[int, float] = {}
    for change in changes(world):
        if isinstance(change.fact, ev.WorkerStarted):
            born[change.fact.worker] = change.at
        elif isinstance(change.action, do.DeclareReady):
            readiness = world.spec.boot.readiness
            assert isinstance(readiness, ReadyAfterDelay)
            assert change.at >= born[change.action.worker] + readiness.seconds


# --- who waits in a queue is served ---


@in_every_history
def test_where_workers_drain_none_is_asked_to_stop_before_its_queues_are_empty_or_its_time_is_over(
    world: World,
) -> None:
    if world.spec.drain_seconds is None:
        return
    for change in changes(world):
        action, before = change.action, change.before
        if isinstance(action, do.StopWorker) and not action.failed and not before.stop:
            worker = before.workers[action.worker]
            assert worker.phase is not Phase.READY, action
            if worker.phase is Phase.DRAINING:
                assert worker.drain_until is not None
                assert worker.drained or change.at >= worker.drain_until, action


@in_every_history
def test_only_workers_that_were_ready_drain_and_only_where_they_have_queues(world: World) -> None:
    for change in changes(world):
        if isinstance(change.action, do.DrainWorker):
            assert world.spec.drain_seconds is not None
            assert change.before.workers[change.action.worker].phase is Phase.READY


@in_every_history
def test_nobody_drains_when_its_queues_are_empty_or_its_time_is_over(world: World) -> None:
    for line in quiet_moments(world):
        for worker in line.observed.workers.values():
            if worker.phase is Phase.DRAINING:
                assert not worker.drained
                assert worker.drain_until is not None
                assert worker.drain_until > line.at


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
    for change in changes(world):
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
    for line in quiet_moments(world):
        for worker in line.observed.workers.values():
            if worker.phase is Phase.STOPPING:
                assert worker.kill_at is not None
                assert worker.kill_at > line.at


@in_every_history
def test_no_deadline_is_ever_moved_later(world: World) -> None:
    for change in changes(world):
        for worker in change.after.workers.values():
            known = change.before.workers.get(worker.id)
            if known and known.kill_at is not None:
                assert worker.kill_at is not None
                assert worker.kill_at <= known.kill_at


@in_every_history
def test_nobody_asked_to_stop_comes_back(world: World) -> None:
    rank = list(Phase)
    for change in changes(world):
        for worker in change.after.workers.values():
            known = change.before.workers.get(worker.id)
            assert known is None or rank.index(known.phase) <= rank.index(worker.phase)


@in_every_history
def test_every_process_is_that_of_a_worker_that_is_known(world: World) -> None:
    for line in quiet_moments(world):
        workers = line.observed.workers.values()
        assert line.living <= {worker.id for worker in workers}
        assert line.living >= {worker.id for worker in workers if worker.pid}


@in_every_history
def test_only_workers_that_do_not_beat_are_stopped_by_the_watchdog(world: World) -> None:
    for change in changes(world):
        action = change.action
        if isinstance(action, do.StopWorker) and action.reason.startswith("no WATCHDOG=1"):
            assert world.fates[action.worker].beats_until is not None


# --- a new server knows what the last one knew ---


@in_every_history
def test_a_new_server_counts_those_who_live_and_misses_only_those_without_a_process(
    world: World,
) -> None:
    for change in changes(world):
        if isinstance(change.fact, ev.ServerAdopted):
            workers = change.before.workers.values()
            known = sum(1 for worker in workers if worker.pid)
            assert change.fact.missing == len(workers) - change.fact.workers - change.fact.ended
            assert change.fact.missing <= len(workers) - known


@in_every_history
def test_who_goes_when_asked_is_killed_only_in_the_moment_in_which_it_was_asked(
    world: World,
) -> None:
    # Unless it came late: it is asked when it is there.
    asked_at: dict[int, float] = {}
    born: set[int] = set()
    for change in changes(world):
        if isinstance(change.fact, ev.WorkerStarted):
            born.add(change.fact.worker)
        if isinstance(change.fact, ev.WorkerStarted | ev.WorkerStopping):
            asked_at[change.fact.worker] = change.at
        elif isinstance(change.action, do.KillWorker):
            worker, reason = change.action.worker, change.action.reason
            has_heard = worker in born and asked_at[worker] < change.at
            if has_heard and reason.startswith("still there"):
                assert world.fates[worker].exits_after != 0.0, change.action


@in_every_history
def test_who_is_still_there_is_urged_by_each_signal_in_its_turn_and_time(world: World) -> None:
    asked: dict[int, tuple[float, list[tuple[int, float]]]] = {}
    for change in changes(world):
        match change.action, change.fact:
            case (do.StopWorker(), ev.WorkerStopping(worker, urgings=urgings)):
                asked[worker] = (change.at, [(one.signal, one.at) for one in urgings])
            case (do.UrgeWorker(worker, number), _):
                _, to_come = asked[worker]
                assert to_come, "urged without having been told of it"
                expected, due = to_come.pop(0)
                assert number == expected
                assert due <= change.at
                kill_at = change.before.workers[worker].kill_at
                assert kill_at is not None
                assert change.at < kill_at
            case _:
                pass


@in_every_history
def test_nobody_waits_for_an_urging_that_is_due(world: World) -> None:
    for line in quiet_moments(world):
        for worker in line.observed.workers.values():
            if worker.phase is Phase.STOPPING:
                assert all(urging.at > line.at for urging in worker.urgings)


# --- who has ended for good is not replaced ---


@in_every_history
def test_a_slot_whose_worker_has_ended_for_good_gets_no_other_in_that_generation(
    world: World,
) -> None:
    for change in changes(world):
        if isinstance(change.action, do.StartWorker):
            account = change.before.slot(change.action.generation, change.action.slot)
            # But for one that was on its way already, as that worker was worn.
            assert not account.is_closed or any(
                worker.slot == change.action.slot and worker.worn
                for worker in change.before.workers_of(change.action.generation)
            )


@in_every_history
def test_a_service_ends_with_the_code_of_a_worker_only_where_it_is_said_to_be_final(
    world: World,
) -> None:
    restart = world.spec.restart
    for change in changes(world):
        if isinstance(change.action, do.RequestStop):
            assert change.action.exit_code in restart.final_codes
            assert change.before.deploy is None
            assert restart.ends_at_once or not change.before.live_count()


@in_every_history
def test_a_service_that_wants_workers_and_may_have_none_ends(world: World) -> None:
    for line in quiet_moments(world):
        observed = line.observed
        if observed.stop is None and observed.deploy is None and observed.current:
            closed = _closed(observed)
            assert not closed or len(closed) < observed.wanted
            assert not (closed and world.spec.restart.ends_at_once)


# --- workers do not start all at once ---


@in_every_history
def test_workers_of_a_generation_start_as_far_apart_as_the_service_says(world: World) -> None:
    least = world.spec.start.delay_seconds * (1 - world.spec.start.jitter / 2)
    started: dict[int, float] = {}
    for change in changes(world):
        match change.fact:
            case ev.WorkerRequested(_, generation) if isinstance(change.action, do.StartWorker):
                if generation in started:
                    assert change.at - started[generation] >= least - 1e-6
                started[generation] = change.at
            case _:
                pass


# --- a deploy that is to be immediate ---


@in_every_history
def test_nobody_whom_an_immediate_deploy_has_replaced_lives_on(world: World) -> None:
    for line in quiet_moments(world):
        observed = line.observed
        newest = observed.generations.get(observed.current)
        if newest is None or not newest.immediate or observed.stop is not None:
            continue
        for worker in observed.workers.values():
            if worker.generation < newest.number and worker.phase is Phase.STOPPING:
                assert worker.kill_at is not None
                assert worker.kill_at <= line.at + 2.0


# --- when to look again ---


@in_every_history
def test_when_nothing_changes_there_is_nothing_to_do_until_the_moment_named(world: World) -> None:
    for line in quiet_moments(world):
        wake_at = math.inf if line.wake_at is None else line.wake_at
        assert wake_at > line.at
        last = min(math.nextafter(wake_at, 0.0), line.at + 1e6)
        for moment in (line.at, (line.at + last) / 2, last):
            assert not plan(world.spec, line.observed, moment).actions


@in_every_history
def test_the_same_history_has_the_same_story(world: World) -> None:
    again = World(world.spec)
    again.play(*(line for line in world.record if not isinstance(line, Change | Quiet)))
    assert again.story() == world.story()


# --- it comes to a good end ---


def _patience_seconds(world: World) -> float:
    """After that long without a fault nothing of the past can be left."""
    spec = world.spec
    boot = max(spec.boot.timeout_seconds, 40.0)  # 40: the slowest fate
    stopping = max(spec.retire.grace_seconds, spec.stop.grace_seconds) + (spec.drain_seconds or 0)
    back_off = spec.restart.backoff_max_seconds + spec.restart.stable_seconds
    kill_old_delay = 20.0
    starting = 6 * spec.start.delay_seconds * (1 + spec.start.jitter)
    return 10 * (boot + stopping + back_off + kill_old_delay + starting)


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
def test_when_faults_cease_all_wanted_slots_are_served_without_a_deploy(world: World) -> None:
    world.play(Heal(), Wait(_patience_seconds(world)))
    observed = world.observed
    if observed.stop is None and observed.deploy is None:
        expected = set(range(observed.wanted)) - _closed(observed)
        assert ready_slots(observed, observed.current) == expected


@in_every_history
def test_a_stop_ends_the_service_after_its_lame_duck_within_the_grace_period(world: World) -> None:
    absence_seconds = world.absence_seconds
    world.play(stop(), Wait(stop_seconds(world.spec) + absence_seconds))
    assert world.finished is not None
    assert not world.observed.workers
    assert not world.living


@in_every_history
def test_a_second_stop_ends_the_service_within_the_grace_period(world: World) -> None:
    absence_seconds = world.absence_seconds
    world.play(stop(), stop(), Wait(world.spec.stop.grace_seconds + absence_seconds))
    assert world.finished is not None
    assert not world.living


@in_every_history
def test_a_lame_duck_begins_nothing_and_stops_nobody_who_serves(world: World) -> None:
    world.play(stop(), Wait(world.spec.lame_duck_seconds), stop(), Wait(1))
    for change in changes(world):
        action, ending = change.action, change.before.stop
        if ending is None or ending.lame_until is None or change.at >= ending.lame_until:
            continue
        assert not isinstance(action, do.StartWorker | do.PrepareGeneration | do.DrainWorker)
        if isinstance(action, do.StopWorker) and not action.failed:
            assert change.before.workers[action.worker].phase is Phase.DRAINING, action


@in_every_history
def test_an_immediate_stop_ends_the_service_at_once(world: World) -> None:
    absence_seconds = world.absence_seconds
    world.play(stop(immediate=True), Wait(absence_seconds))
    assert world.finished is not None
    assert not world.observed.workers
    assert not world.living


def test_thousands_of_deploys_leave_no_trace() -> None:
    world = World(make_spec(), keeps_record=False)
    world.play(hup(), *[hup()] * 2_000)
    first = world.observed
    assert first.current == 2_001
    assert len(first.generations) == 1
    assert len(first.workers) == 2
    assert len(first.slots) <= 2
    assert not first.superseded
