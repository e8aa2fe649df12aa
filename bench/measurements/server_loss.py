"""The process in charge is killed with -9 under load: what fails, and who takes over."""

import os
import signal
import time
from collections.abc import Callable
from typing import NamedTuple

from bench import client, processes
from bench.compare import bar_chart, bar_row, peer_rows
from bench.registry import Measurement
from bench.results import Result, Row, spread
from bench.session import Session
from bench.steady import REQUESTS_PER_SECOND, Steady, Tally
from bench.victims import KINDS, OURS, RETURN_SECONDS, SERVER, SUPERVISOR, Case, Return, all_cases
from bench.webservers.available import versions

_MOST_MILLISECONDS = 500.0
_START_SECONDS = 30.0
_BEFORE_SECONDS = 0.3  # of load, before the kill
_REPLACE_SECONDS = 30.0
_GONE_SECONDS = 5.0

HOW = """\
Each serves a hello with one worker, under {rate} requests a second: four clients keep their
connections, four open one for each request. supervisor and Circus run bjoern, start_server a worker
in C, ServerEngine a program like the one for TCP in its README. Then the process in charge is
killed with -9: sengu's server, and in other runs its supervisor; the arbiter of gunicorn, the
master of Unicorn, supervisord, circusd, start_server; ServerEngine's server, and its supervisor.
Nothing restarts a main process here, as systemd would. Every kill has a fresh start of its own:
{count} of each of ours, {peer_count} of each other, in turns. *Failed* are requests until
{seconds} s after the kill that had no whole answer; *refused* are those of them that found nobody
listening. Somebody is *in charge again* when a new server of sengu has adopted and its control
socket answers; with the others, when a process below the main process answers. *Never* is what had
not come after {watch:g} s, or at the end of the load if the main process was gone. *Left behind*
are processes from before the kill that run after all this, with nobody of their program above
them. Those who came back have then their worker killed, without load: it is *replaced* when a
client that asks without pause has the answer of another process."""

_STUCK = (
    "ServerEngine's supervisor starts server after server, but the worker that was left behind has "
    "the port, and goes on."
)


class Loss(NamedTuple):
    """What one kill did. `replaced`: milliseconds, of those who came back."""

    back: Return
    tally: Tally
    left_behind: int
    replaced: float | None


def run(session: Session) -> Result:
    count, peer_count = session.pick((20, 3), (1, 1))
    seconds = session.pick(3.0, 2.5)
    cases = [case for case in all_cases() if case.is_here]
    found: dict[str, list[Loss]] = {case.label: [] for case in cases}
    every = count // peer_count
    for number in range(every * peer_count):
        for case in cases:
            if case.label in OURS or number % every == 0:
                session.say(f"kill {number + 1}, {case.label}")
                found[case.label].append(_lose(session, case, seconds))
    how = HOW.format(
        **{"rate": REQUESTS_PER_SECOND, "count": every * peer_count, "peer_count": peer_count},
        **{"seconds": f"{seconds:g}", "watch": RETURN_SECONDS},
    )
    return _result(how, found)


def _lose(session: Session, case: Case, seconds: float) -> Loss:
    running = case.launch(session)
    with running.program:
        client.first_answer(running.port, "/", time.monotonic() + _START_SECONDS)
        time.sleep(session.pick(1.0, 0.3))  # let it come to rest after the start
        members = processes.tree(running.program.pid)
        with Steady(running.port, _BEFORE_SECONDS + seconds) as load:
            time.sleep(_BEFORE_SECONDS)
            back = case.kill(running, time.monotonic() + seconds)
        orphans = processes.wait_gone(members, 0) - set(processes.tree(running.program.pid))
        replaced = None if back.in_charge is None else _replace(running.port)
        for pid in orphans:
            os.kill(pid, signal.SIGKILL)  # a pid of ours: this process would have to reap it
        processes.wait_gone(orphans, _GONE_SECONDS)
    return Loss(back, load.tally, len(orphans), replaced)


def _replace(port: int) -> float:
    """Milliseconds until the worker, killed, is replaced."""
    victim = int(client.ask(port, "/pid"))
    begin = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    while True:
        successor = int(client.first_answer(port, "/pid", begin + _REPLACE_SECONDS))
        if successor != victim:  # it may have accepted, and the kernel not yet ended it
            return (time.monotonic() - begin) * 1000


def _result(how: str, found: dict[str, list[Loss]]) -> Result:
    server, supervisor = found[SERVER], found[SUPERVISOR]
    adopted = [loss.back.event for loss in server if loss.back.event is not None]
    answered = _times(server)
    lost = sum(loss.tally.failed for loss in server)
    left = max(loss.left_behind for loss in (*server, *supervisor))
    rows = [
        Row("server killed → adopted, by sengu's event", spread(adopted, "ms")),
        bar_row("server killed → control socket answers", answered, "ms", _MOST_MILLISECONDS),
        Row("server killed: failed requests", _failed(server), bar="0", reached=lost == 0),
        Row("left behind", _beside(_left, found), bar="0", reached=left == 0),
        *_peer_rows("in charge again", _in_charge, found),
        *_peer_rows("failed requests", _failed, found),
        *_peer_rows("left behind", _left, found),
        *_replaced_rows(found),
    ]
    chart = bar_chart(
        "server-loss",
        "The process in charge is killed: failed requests",
        "requests, median and range",
        {label: [loss.tally.failed for loss in losses] for label, losses in found.items()},
    )
    absent = [f"{case.label} is not measured here." for case in all_cases() if not case.is_here]
    stuck = [loss for loss in found.get("ServerEngine's server", []) if loss.left_behind]
    return Result(
        title="The process in charge is killed",
        how=how,
        rows=rows,
        charts=[chart],
        notes=[*absent, *([_STUCK] if stuck else [])],
        samples=_samples(found),
        versions=versions(*KINDS),
    )


def _peer_rows(
    what: str, say: Callable[[list[Loss]], str], found: dict[str, list[Loss]]
) -> list[Row]:
    """Both of ours against each other one."""
    ours = _beside(say, found)
    return [
        Row(what, ours, f"{label}: {say(losses)}")
        for label, losses in found.items()
        if label not in OURS
    ]


def _beside(say: Callable[[list[Loss]], str], found: dict[str, list[Loss]]) -> str:
    return f"server: {say(found[SERVER])}; supervisor: {say(found[SUPERVISOR])}"


def _replaced_rows(found: dict[str, list[Loss]]) -> list[Row]:
    """Of those who came back after each kill."""
    replaced = {
        label: [loss.replaced for loss in losses if loss.replaced is not None]
        for label, losses in found.items()
    }
    returned = {
        label: values for label, values in replaced.items() if len(values) == len(found[label])
    }
    return peer_rows("worker killed after that → replaced", returned, "ms", {}, {})


def _times(losses: list[Loss]) -> list[float]:
    return [loss.back.in_charge for loss in losses if loss.back.in_charge is not None]


def _in_charge(losses: list[Loss]) -> str:
    found, never = _times(losses), len(losses) - len(_times(losses))
    if not found:
        return "never"
    return spread(found, "ms") + (f", {never} × never" if never else "")


def _failed(losses: list[Loss]) -> str:
    """Of all kills together."""
    count = sum(loss.tally.all for loss in losses)
    failed = sum(loss.tally.failed for loss in losses)
    refused = sum(loss.tally.refused for loss in losses)
    return f"{failed} of {count}" + (f", {refused} of them refused" if refused else "")


def _left(losses: list[Loss]) -> str:
    low, high = (pick(loss.left_behind for loss in losses) for pick in (min, max))
    return str(low) if low == high else f"{low}–{high}"


def _samples(found: dict[str, list[Loss]]) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {}
    for label, losses in found.items():
        samples[f"{label}, ms until in charge"] = _times(losses)
        samples[f"{label}, requests broken"] = [loss.tally.broken for loss in losses]
        samples[f"{label}, requests refused"] = [loss.tally.refused for loss in losses]
        samples[f"{label}, left behind"] = [loss.left_behind for loss in losses]
    return samples


MEASUREMENT = Measurement("server-loss", 170, run)
