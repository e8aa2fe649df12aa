"""What a message costs: `sengu consume` beside Celery and dramatiq, on one broker."""

import statistics
from typing import NamedTuple

from bench import broker
from bench.compare import bar_chart, peer_rows
from bench.consuming.base import Consuming, Found, Setting
from bench.consuming.celery import Celery
from bench.consuming.dramatiq import Dramatiq
from bench.consuming.sengu import Sengu
from bench.registry import Measurement
from bench.results import Result, Row, significant
from bench.session import Session
from bench.webservers.available import missing_notes, versions

_KINDS: tuple[type[Consuming], ...] = (Sengu, Celery, Dramatiq)
_BARS = {"Celery": 1 / 3, "dramatiq": 1.0}
_LAYOUTS = {"1 process × 5 threads": (1, 5), "2 processes": (2, 1)}
_JOBS = {
    "empty": "empty job",
    "sleep": "1 ms job that sleeps",
    "busy": "1 ms job that computes",
}


class Amount(NamedTuple):
    """Per measured run: messages of an empty job, ours and theirs, and of another; seconds."""

    rounds: int
    ours: int
    theirs: int
    others: int
    seconds: float


HOW = """\
All messages are in a durable quorum queue before a program starts, published with its own library;
they carry a URL of 200 bytes as JSON, which the job takes out. Each is acknowledged after its job
(Celery: `acks_late`, no results). A job that sleeps waits as if for a network; one that computes
needs a millisecond of a processor. Once each process has done {warm} jobs, the programs are watched
for {seconds:g} s, or until nine tenths are done. CPU is user and system time on a processor of
all their processes and threads (`/proc/PID/task/*/schedstat`) by jobs done in that time; the job's
own is in it. `/s` is the throughput, on processors that the consumers share with the broker.
Prefetch is per process; 2 processes have 1 thread each, Celery's are its prefork pool and get what
one more process reads for them. {rounds} rounds, in which all programs take turns."""


def run(session: Session) -> Result:
    amount = session.pick(Amount(3, 20_000, 6_000, 4_000, 1.5), Amount(1, 1_500, 1_500, 1_500, 0.3))
    kinds = [kind for kind in _KINDS if kind.version() is not None]
    settings = session.pick(_settings(), _settings()[:1])
    found: dict[Setting, dict[str, list[Found]]] = {}
    with broker.node() as node:
        for _ in range(amount.rounds):
            for setting in settings:
                for kind in kinds:
                    one = _measure(session, kind, setting, node, amount)
                    found.setdefault(setting, {}).setdefault(kind.label, []).append(one)
        version = broker.version(node)
    how = HOW.format(warm=100, seconds=amount.seconds, rounds=amount.rounds)
    result = Result(
        "What a message costs", how, [row for one in found.items() for row in _rows(*one)]
    )
    result.notes = missing_notes(*_KINDS)
    result.versions = f"{versions(*_KINDS)}, {version}"
    for setting, each in found.items():
        for label, values in each.items():
            result.samples[f"{label}, {_title(setting)}, µs"] = [one.microseconds for one in values]
            result.samples[f"{label}, {_title(setting)}, /s"] = [one.rate for one in values]
    first = settings[0]
    costs = {label: [one.microseconds for one in many] for label, many in found[first].items()}
    title = f"CPU time of a message, {_title(first)}"
    result.charts = [bar_chart("consumers", title, "µs", costs)]
    return result


def _settings() -> list[Setting]:
    several = [
        Setting(job, processes, threads, prefetch)
        for job, prefetch in (("empty", 10), ("empty", 100), ("sleep", 10))
        for processes, threads in _LAYOUTS.values()
    ]
    # Threads of one interpreter compute one after the other.
    return [*several, Setting("busy", 2, 1, 10)]


def _measure(
    session: Session, kind: type[Consuming], setting: Setting, node: broker.Node, amount: Amount
) -> Found:
    count = amount.others
    if setting.job == "empty":
        count = amount.ours if kind is Sengu else amount.theirs
    directory = session.fresh_directory()
    with node.own_vhost():
        kind.publish(directory, setting, node.url, count)
        with kind(directory, setting, node.url) as program:
            return program.measure(count, amount.seconds)


def _rows(setting: Setting, found: dict[str, list[Found]]) -> list[Row]:
    costs = {label: [one.microseconds for one in many] for label, many in found.items()}
    rates = {
        label: f", {significant(statistics.median([one.rate for one in many]))}/s"
        for label, many in found.items()
    }
    # With a job that computes, the job is what is measured.
    bars = {} if setting.job == "busy" else _BARS
    return peer_rows(f"CPU, {_title(setting)}", costs, "µs", bars, rates)


def _title(setting: Setting) -> str:
    layouts = {layout: words for words, layout in _LAYOUTS.items()}
    layout = layouts[setting.processes, setting.threads]
    return f"{_JOBS[setting.job]}, {layout}, prefetch {setting.prefetch}"


MEASUREMENT = Measurement("consumers", 200, run)
