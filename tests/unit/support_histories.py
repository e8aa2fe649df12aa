"""Random services with random histories, for claims that must hold in all of them."""

import itertools
from collections.abc import Callable

import msgspec
from hypothesis import given, note
from hypothesis import strategies as st

from sengu.model.application import Application
from sengu.model.service import (
    BootPolicy,
    Pacing,
    ReadyAfterDelay,
    ReadyByNotify,
    ReadyByProbe,
    RestartPolicy,
    Rolling,
    ServiceSpec,
    StartPolicy,
    StopPolicy,
    Surge,
    Urge,
)
from tests.unit.support_steps import (
    BROKEN,
    FINAL,
    FINISHED,
    HANGING,
    HEALTHY,
    LINGERING,
    QUIT,
    RELUCTANT,
    SILENT,
    SLOW,
    STUBBORN,
    TARDY,
    TERM,
    USR1,
    Command,
    Crowd,
    Die,
    Fate,
    Heal,
    Loading,
    LoseForkServers,
    LoseServer,
    Next,
    Pace,
    RefuseForks,
    RunOut,
    SlowForks,
    SpoilGenerations,
    Stall,
    Step,
    Stick,
    Wait,
    Wake,
    WearOut,
    adjust,
    configure,
    hup,
    scale,
    stop,
    winch,
)
from tests.unit.support_world import World

# Few and round, so that deadlines coincide: that is where mistakes are.
_seconds = st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 40.0])
_maybe_seconds = st.none() | _seconds

_steps = st.sampled_from(
    [(), (), (Urge(QUIT, 2.0),), (Urge(QUIT, 0.0), Urge(USR1, 5.0)), (Urge(QUIT, 30.0),)]
)

_specs = st.builds(
    ServiceSpec,
    name=st.just("fake"),
    command=st.just(("fake",)),
    workers=st.sampled_from([2, 1, 3, 4, 6, 0]),
    boot=st.builds(
        BootPolicy,
        readiness=st.one_of(
            st.just(ReadyByNotify()),
            st.just(ReadyByProbe()),
            st.builds(ReadyAfterDelay, st.sampled_from([0.0, 1.0, 5.0])),
        ),
        timeout_seconds=st.sampled_from([5.0, 20.0]),
        attempts=st.sampled_from([1, 2, 3, 9]),
    ),
    retire=st.builds(
        StopPolicy, st.sampled_from([TERM, USR1]), st.sampled_from([1.0, 10.0, 60.0]), _steps
    ),
    stop=st.builds(StopPolicy, st.just(TERM), st.sampled_from([0.0, 5.0, 20.0]), _steps),
    restart=st.builds(
        RestartPolicy,
        st.sampled_from([0.5, 1.0]),
        st.sampled_from([4.0, 30.0]),
        final_codes=st.sampled_from([(), (FINAL,)]),
        ends_at_once=st.booleans(),
    ),
    strategy=st.just(Surge())
    | st.builds(Rolling, max_surge=st.integers(1, 3), max_unavailable=st.just(0))
    | st.builds(Rolling, max_surge=st.integers(0, 3), max_unavailable=st.integers(1, 2)),
    watchdog_seconds=st.sampled_from([None, 10.0]),
    pre_deploy=st.sampled_from([(), (), (("one",),), (("one",), ("two",))]),
    pre_deploy_seconds=st.sampled_from([10.0, 60.0]),
    application=st.sampled_from([None, Application(engine="fake", target="fake:app")]),
    drain_seconds=st.sampled_from([None, 10.0, 2.0, 0.0]),
    lame_duck_seconds=st.sampled_from([0.0, 5.0]),
    start=st.sampled_from([StartPolicy(), StartPolicy(), StartPolicy(2.0, 0.5), StartPolicy(1.0)]),
)

_fates = st.sampled_from(
    [HEALTHY, SLOW, BROKEN, SILENT, STUBBORN, LINGERING, TARDY, HANGING, RELUCTANT, FINISHED]
) | st.builds(
    Fate,
    ready_after=_maybe_seconds,
    dies_after=_maybe_seconds,
    exits_after=_maybe_seconds,
    beats_until=_maybe_seconds,
    yields_after=_maybe_seconds,
    dies_with=st.sampled_from([1, FINAL]),
)

_pacings = st.builds(
    Pacing,
    kill_old_delay_seconds=st.sampled_from([0.0, 2.0, 20.0]),
    auto_restart_seconds=st.sampled_from([None, None, 15.0]),
)

_fault: st.SearchStrategy[Step] = st.one_of(
    st.builds(Next, _fates, st.integers(1, 3)),
    st.builds(Next, _fates, st.integers(1, 20)),
    st.builds(RefuseForks, st.integers(1, 6)),
    st.builds(RunOut, st.integers(1, 3)),
    st.builds(Crowd, _maybe_seconds, st.integers(1, 6)),
    st.builds(SlowForks, _maybe_seconds, st.integers(1, 6)),
    st.builds(SpoilGenerations, st.integers(1, 2)),
    st.builds(Loading, _maybe_seconds, st.booleans(), st.integers(1, 3)),
    st.builds(Command, _maybe_seconds, st.booleans(), _maybe_seconds, st.integers(1, 3)),
    st.builds(Pace, _pacings),
)
_wish: st.SearchStrategy[Step] = st.one_of(
    st.builds(hup, st.sampled_from([1, 1, 1, 3]), immediate=st.sampled_from([False, False, True])),
    st.builds(scale, st.integers(0, 6)),
    st.builds(adjust, st.sampled_from([1, -1])),
    st.builds(Die, st.integers(0, 11)),
    st.builds(Die, st.integers(0, 11)),
    st.builds(WearOut, st.integers(0, 11)),
    st.builds(Stick, st.integers(0, 11)),
    st.just(LoseForkServers()),
    st.just(winch()),
    st.just(configure()),
    st.just(Heal()),
)
_time: st.SearchStrategy[Step] = st.one_of(
    st.builds(Wait, _seconds), st.builds(Stall, _seconds), st.just(Wake())
)
# At rest; or in the middle of what comes next; or later, when few expect it.
_loss: st.SearchStrategy[Step] = st.builds(
    LoseServer,
    st.sampled_from([0, 0, 50]) | st.integers(1, 20),
    st.sampled_from([0.0, 0.0, 0.5, 5.0, 20.0]),
)
# Something goes wrong just when something is wanted: else most histories would be of peace.
_episode: st.SearchStrategy[tuple[Step, ...]] = st.one_of(
    st.just(()),
    st.tuples(_wish),
    st.tuples(_wish, _time),
    st.tuples(_loss, _wish, _time),
    st.tuples(_fault, _loss, _loss, st.builds(hup), _time, _wish, _time),
    st.tuples(_fault, _wish, _time),
    st.tuples(_fault, _fault, st.builds(hup), _time, _wish, _time),
    st.tuples(st.builds(Die, st.integers(0, 11)), st.just(Wake())),
    st.tuples(st.just(LoseForkServers()), st.builds(Die, st.integers(0, 11)), _time),
    # The candidate and some more are well, those after them are not.
    st.tuples(
        st.builds(Next, st.just(HEALTHY), st.integers(1, 3)),
        st.builds(Next, _fates, st.integers(1, 20)),
        st.builds(hup),
        _time,
        _time,
    ),
)
_end: st.SearchStrategy[tuple[Step, ...]] = st.tuples(
    st.builds(stop, st.booleans()), _time, _wish, st.builds(stop, st.booleans()), _time
)


class History(msgspec.Struct, frozen=True):
    """A service and what befalls it."""

    spec: ServiceSpec
    steps: tuple[Step, ...]


def _history(
    spec: ServiceSpec, start: tuple[Step, ...], life: list[tuple[Step, ...]], end: tuple[Step, ...]
) -> History:
    return History(spec, (*start, hup(), *itertools.chain(*life), *end))


def _seldom(steps: st.SearchStrategy[tuple[Step, ...]]) -> st.SearchStrategy[tuple[Step, ...]]:
    return st.integers(0, 5).flatmap(lambda n: steps if n == 5 else st.just(()))


_histories = st.builds(
    _history,
    _specs,
    _seldom(st.tuples(_fault, _fault)),
    st.lists(_episode, min_size=6, max_size=16),
    _seldom(_end),
)


def in_every_history(claim: Callable[[World], None]) -> Callable[[], None]:
    """Makes a test of a claim about the world at the end of a history, and about its record."""

    def test(history: History) -> None:
        world = World(history.spec)
        try:
            world.play(*history.steps)
            claim(world)
        except BaseException:
            note(world.story())
            raise

    # Hypothesis seeds the fast profile by name: so each claim meets histories of its own.
    test.__name__ = claim.__name__
    test.__doc__ = claim.__doc__
    return given(_histories)(test)
