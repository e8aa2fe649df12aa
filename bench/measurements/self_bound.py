"""Programs that bind their port by themselves are deployed under load: what fails."""

from collections.abc import Iterator
from contextlib import ExitStack

from bench.binders import (
    GRANIAN,
    GUNICORN,
    GUNICORN_THREADS,
    WORKERS,
    Binder,
    User,
    in_container,
    users,
)
from bench.compare import bar_chart
from bench.containers import Podman
from bench.load import Ab, Wrk
from bench.managers.available import missing_notes, present
from bench.managers.start_server import StartServer
from bench.registry import Measurement
from bench.results import Chart, Result, Row
from bench.session import BenchError, Session
from bench.trials import DEPLOY_SECONDS, SERVE, Amount, Field, Task, Trial
from bench.webservers.available import versions
from bench.webservers.granian import Granian
from bench.webservers.gunicorn import Gunicorn
from bench.webservers.sengu import Sengu

_NEW = (Task(Ab(20), False), Task(Ab(200), False))
_KEPT = (Task(Ab(50, keeps_alive=True), True), Task(Wrk(50), True))
_QUICK = ((_NEW[0],), (_KEPT[1],))

_KINDS = (Sengu, StartServer, Gunicorn, Granian, Podman)
_MOST_FAILURES = 10  # in connecting: with one more, ab gives up

HOW = """\
A hello of programs that bind their port by themselves, with SO_REUSEPORT: `gunicorn --reuse-port`
and granian with {workers} workers, and a container with one worker in C, of an image by `podman
import`, with the host's network. Each runs under `start_server --kill-old-delay=1`, and under
`sengu start --self-bound 8080`, as {whom}; what leads connections from
old to new is what sengu found by itself. Every {every:g} s there is a deploy; those of sengu all
succeeded. `sengu serve` binds nothing by itself: there it is `--reuseport`, with
nobody beside it. `ab -r -l` makes {amount}, a connection for each; with `-k`, and in the
{seconds} s of `wrk`, connections are kept. A connection that is closed between two requests is no
failure to `ab -k`; to wrk it is one as soon as it waits for an answer. A reset is one failure here,
though ab counts two. ab gives up, even with `-r`, when more than {most} connections could not be
made, or when nothing comes for 10 s: *aborted*. {network}"""

_OWN_NETWORKS = "Each has a network namespace of its own."
_NO_NETWORKS = "All is on the machine's loopback, as no network namespace can be made here."
_FOREIGN = (
    "Where connections are kept, gunicorn and granian close or abort some that they have accepted "
    "when they are told to stop. sengu tells them when whoever was connected at the turn has had "
    "an answer, at most `--drain` later, but cannot know of the next request on a connection that "
    "is kept: so there is no bar. A proxy in front that asks again hides it."
)


def run(session: Session) -> Result:
    amount = session.pick(Amount(20, 100_000), Amount(3, None))
    new, kept = session.pick((_NEW, _KEPT), _QUICK)
    field = Field(session, amount)
    whoever, notes = users()
    trials: list[Trial] = []
    contests = [(GUNICORN, new), (GRANIAN, new)]
    contests += session.pick([(GUNICORN_THREADS, kept), (GRANIAN, kept)], [])
    for binder, tasks in contests:
        if binder.is_here:
            trials += _compare(field, binder, tasks, whoever)
    with ExitStack() as stack:
        try:
            podman = stack.enter_context(Podman(session, session.program("http_worker", "-static")))
            podman.try_out()
        except BenchError as problem:
            notes.append(f"No container is measured here: {problem}.")
        else:
            trials += _compare(field, in_container(podman), new, whoever[:1])
    for user in whoever:
        trials += field.serve((*new, *kept), user)
    absent = {binder.program for binder, _ in contests if not binder.is_here}
    notes += [f"{name} is not installed here." for name in sorted(absent)]
    notes += [*missing_notes(StartServer), _FOREIGN]
    return _result(trials, notes, _how(amount, field, whoever))


def _compare(
    field: Field, binder: Binder, tasks: tuple[Task, ...], whoever: list[User]
) -> Iterator[Trial]:
    """Under start_server, and under sengu as each user."""
    if StartServer in present(StartServer):
        yield from field.under_start_server(binder, tasks)
    for user in whoever:
        yield from field.under_sengu(binder, tasks, user)


def _how(amount: Amount, field: Field, whoever: list[User]) -> str:
    names = [f"{u.label}{' without any capability' if u.prefix else ''}" for u in whoever]
    return HOW.format(
        workers=WORKERS,
        whom=", and as ".join(names),
        every=DEPLOY_SECONDS,
        amount=f"{amount.requests or 'many'} requests",
        seconds=amount.seconds,
        most=_MOST_FAILURES,
        network=_OWN_NETWORKS if field.has_networks else _NO_NETWORKS,
    )


def _result(trials: list[Trial], notes: list[str], how: str) -> Result:
    rows, ours, theirs = [], [t for t in trials if t.user], [t for t in trials if not t.user]
    peers = {(trial.binder, trial.task): trial for trial in theirs}
    for trial in ours:
        rows.append(_row(trial, peers.pop((trial.binder, trial.task), None)))
    return Result(
        title="Programs that bind by themselves are deployed under load",
        how=how,
        rows=rows,
        charts=[_chart(trials)],
        notes=notes,
        samples=_samples(trials),
        versions=versions(*_KINDS),
    )


def _row(trial: Trial, peer: Trial | None) -> Row:
    """A peer stands beside the first user only."""
    load, has_bar = trial.outcome.load, trial.binder == SERVE or not trial.task.is_kept
    return Row(
        f"{trial.binder}, {trial.task.title}, as {trial.user}: failed",
        f"{trial.outcome.tell()}; {trial.technique}",
        f"start_server: {peer.outcome.tell()}" if peer else "",
        bar="0" if has_bar else "",
        reached=load is not None and load.failed == 0 if has_bar else None,
    )


def _chart(trials: list[Trial]) -> Chart:
    """Of connections for one request each, as one user: start_server and sengu in turns."""
    user = next(trial.user for trial in trials if trial.user)
    shown = [t for t in trials if t.user in {"", user} and not t.task.is_kept]
    places = list(dict.fromkeys((trial.binder, trial.task) for trial in shown))
    found = {}
    for trial in sorted(shown, key=lambda trial: places.index((trial.binder, trial.task))):
        label = f"{_keeper(trial)}, {trial.task.title}"
        if trial.outcome.load is None:
            found[f"{label} (aborted)"] = [_MOST_FAILURES + 1.0]
        else:
            found[label] = [float(trial.outcome.load.failed)]
    return bar_chart("self-bound", "Deploys under load: failed requests", "requests", found)


def _keeper(trial: Trial) -> str:
    return trial.binder if trial.binder == SERVE else f"{trial.keeper}, {trial.binder}"


def _samples(trials: list[Trial]) -> dict[str, list[float]]:
    """An aborted one has none."""
    samples: dict[str, list[float]] = {}
    for trial in trials:
        load = trial.outcome.load
        label = f"{trial.binder} under {trial.keeper}, {trial.task.title}"
        samples[f"{label}, deploys"] = [trial.outcome.deploys]
        if load is not None:
            samples[f"{label}, failed"] = [load.failed]
            samples[f"{label}, requests"] = [load.requests]
            samples[f"{label}, requests/s"] = [load.requests_per_second]
            samples[f"{label}, slowest ms"] = [load.slowest_milliseconds]
    return samples


MEASUREMENT = Measurement("self-bound", 127, run)
