"""What people are told: facts that changed something, and each once."""

import msgspec
import pytest

from sengu.model import events as ev
from sengu.model.application import Application
from sengu.model.observed import Observed, Outcome
from sengu.model.service import BootPolicy, ReadyByNotify, RestartPolicy, ServiceSpec, StopPolicy
from sengu.planner import initial, reduce
from sengu.planner.reduce import Fact
from sengu.server.narrate import narrate

STOP = StopPolicy(signal=15, grace_seconds=5.0)
SPEC = ServiceSpec(
    name="web",
    command=("true",),
    workers=1,
    boot=BootPolicy(ReadyByNotify(), timeout_seconds=5.0, attempts=1),
    retire=STOP,
    stop=STOP,
    restart=RestartPolicy(backoff_seconds=1.0),
)


UP = (
    ev.DeployRequested("start"),
    ev.WorkerStarted(1, 1, 0, 77, "first generation"),
    ev.WorkerReady(1, "said READY=1"),
)


def told(*facts: Fact, spec: ServiceSpec = SPEC) -> list[str]:
    """The sentences about all these facts."""
    observed: Observed = initial(spec)
    sentences = []
    for fact in facts:
        before, observed = observed, reduce(spec, observed, fact, 1.0)
        sentences.append(narrate(fact, before, observed))
    return [sentence for sentence in sentences if sentence is not None]


def test_a_worker_is_ready_once_however_often_it_says_so() -> None:
    ready = ev.WorkerReady(1, "said READY=1")
    sentences = told(
        ev.DeployRequested("start"),
        ev.WorkerStarted(1, 1, 0, 77, "first generation"),
        *(ready, ready),
        ev.WorkerStopping(1, 15, 6.0, "to rest"),
        ready,
        ev.WorkerExited(1, "exit status 0"),
        ready,
    )
    assert [sentence for sentence in sentences if "is ready" in sentence] == [
        "worker 0 of generation 1 (pid 77) is ready: said READY=1"
    ]


def test_a_worker_is_started_once_however_often_that_is_told() -> None:
    started = ev.WorkerStarted(1, 1, 0, 77, "first generation")
    requested = ev.WorkerRequested(1, 1, 0, "first generation")
    sentences = told(ev.DeployRequested("start"), requested, started, started)
    assert sentences[1:] == ["worker 0 of generation 1 started as pid 77 (first generation)"]


def test_a_drain_is_told_from_its_beginning_to_its_end_and_only_while_it_lasts() -> None:
    drained = ev.WorkerDrained(1, "nobody waits for it any more")
    sentences = told(
        *UP,
        drained,
        ev.WorkerDraining(1, 11.0, "scaled to 0"),
        drained,
        ev.WorkerStopping(1, 15, 6.0, "scaled to 0"),
        drained,
    )
    worker = "worker 0 of generation 1 (pid 77)"
    assert sentences[len(UP) :] == [
        f"{worker} gets no more connections, and is drained: scaled to 0",
        f"{worker} has drained: nobody waits for it any more",
        f"{worker} is asked to stop by TERM: scaled to 0",
    ]


def test_a_stop_tells_what_a_second_one_would_do() -> None:
    lame = msgspec.structs.replace(SPEC, lame_duck_seconds=5.0)
    term = ev.StopRequested("TERM")
    usual = "stop asked for by TERM; INT again, or QUIT, would not wait for workers"
    assert told(*UP, term)[-1] == usual
    assert told(*UP, term, spec=lame)[-1] == (
        "stop asked for by TERM; until others have learnt of it (--lame-duck) all is served, "
        "or until TERM comes again"
    )
    assert told(*UP, term, term, spec=lame)[-1] == usual


def test_a_worker_without_a_process_is_told_as_a_failed_start() -> None:
    sentences = told(
        ev.DeployRequested("start"),
        ev.WorkerRequested(1, 1, 0, "first generation"),
        ev.WorkerExited(1, "no process: cannot fork"),
        ev.WorkerRequested(2, 1, 0, "first generation"),
        ev.WorkerStopping(2, 15, 6.0, "to rest"),
        ev.WorkerExited(2, "no process: it was given up"),
    )
    assert sentences[1] == (
        "worker 0 of generation 1 could not be started: cannot fork (failure 1 in a row)"
    )
    assert sentences[-1] == "worker 0 of generation 1 has no process: it was given up"


@pytest.mark.parametrize(
    ("fact", "sentence"),
    [
        (
            ev.ServerAdopted(1234, workers=4, ended=1, unwanted=0, missing=0),
            "server 1234 has taken over: 4 workers live on, 1 ended meanwhile",
        ),
        (
            ev.ServerAdopted(1234, workers=1, ended=0, unwanted=2, missing=3),
            "server 1234 has taken over: 1 worker lives on, 2 that nobody wants any more killed, "
            "3 asked for again",
        ),
        (ev.UpgradeRequested("USR2"), "upgrade of sengu asked for by USR2"),
        (
            ev.UpgradeFailed("the new server was not ready within 30 s"),
            "sengu is not upgraded: the new server was not ready within 30 s; "
            "the old version goes on",
        ),
        (ev.Upgraded("0.4", "0.3"), "sengu is upgraded from 0.3 to 0.4"),
        (
            ev.Upgraded("0.4", "0.4"),
            "sengu 0.4 goes on as installed now, which is the same version",
        ),
    ],
)
def test_what_becomes_of_the_server_is_told(fact: Fact, sentence: str) -> None:
    assert told(fact) == [sentence]


def test_commands_before_a_generation_are_told() -> None:
    sentences = told(
        ev.DeployRequested("start"),
        ev.StepStarted(1, 0, "./migrate --now"),
        ev.StepEnded(1, 0),
        ev.StepEnded(1, 0),
        ev.StepStarted(1, 1, "./tell"),
        ev.StepStopping(1, 9.0, "was not done within 5 s"),
        ev.StepKilled(1, "still there at the end of its grace period"),
        ev.StepEnded(1, 1, "ended with signal KILL", "words"),
    )
    assert sentences[1:] == [
        "--pre-deploy './migrate --now' runs before generation 1",
        "--pre-deploy './migrate --now' of generation 1 is done",
        "--pre-deploy './tell' runs before generation 1",
        "--pre-deploy './tell' of generation 1 is asked to stop by TERM: was not done within 5 s",
        "--pre-deploy './tell' of generation 1 is killed: "
        "still there at the end of its grace period",
        "--pre-deploy './tell' of generation 1 ended with signal KILL",
    ]


def test_a_final_exit_is_told_with_what_follows_from_it() -> None:
    spec = msgspec.structs.replace(SPEC, restart=RestartPolicy(1.0, final_codes=(3,)))
    exited = ev.WorkerExited(1, "exit status 3")
    by = "a worker that exited with 3, which is final"
    ends = ev.StopRequested(by, urgent=True, exit_code=3)
    assert told(*UP, exited, spec=spec)[-1] == (
        "worker 0 of generation 1 (pid 77) exited with exit status 3, which is final: it is not "
        "replaced (--unrecoverable-exit-codes)"
    )
    assert told(*UP, exited, ends, spec=spec)[-1] == f"stop asked for by {by}"


def test_a_worker_that_is_asked_once_more_and_a_deploy_that_hurries_are_told() -> None:
    sentences = told(
        *UP,
        ev.WorkerStopping(1, 15, 6.0, "stop by TERM"),
        ev.WorkerUrged(1, 3, "it is still there"),
    )
    assert sentences[-1] == (
        "worker 0 of generation 1 (pid 77) is asked once more, by QUIT: it is still there"
    )
    hurried = ev.DeployRequested("HUP", immediate=True)
    assert told(*UP, hurried)[-1] == "immediate deploy of generation 2 asked for by HUP"


CONFIGURED = msgspec.structs.replace(
    SPEC, application=Application(engine="fake", target="fake:app", is_configured=True)
)


def test_what_has_come_of_a_configuration_is_told_and_of_one_at_a_start_what_counts() -> None:
    assert told(
        *UP,
        ev.Configured(1, True),
        ev.Configured(1, True, taken=("workers 1 -> 8",)),
        ev.ConfigureRequested("USR2"),
        ev.Configured(1, True, waiting=("dir / needs a restart",), inquiry=1),
        ev.ConfigureRequested("USR2"),
        ev.ConfigureSent(1, 2),
        ev.Configured(1, False, inquiry=2),
        ev.ConfigureFailed(1, 3, "jobs.toml: workers: '-3' is no number"),
        spec=CONFIGURED,
    )[3:] == [
        "configuration of generation 1: workers 1 -> 8",
        "the configuration is read anew, asked for by USR2",
        "configuration of generation 1: workers have another one now; dir / needs a restart",
        "the configuration is read anew, asked for by USR2",
        "configuration of generation 1: nothing has changed",
        "the configuration stays as it was: jobs.toml: workers: '-3' is no number",
    ]


def test_a_configuration_that_is_asked_for_where_there_is_none_is_told_to_be_none() -> None:
    assert told(ev.ConfigureRequested("USR2")) == [
        "USR2 asked for the configuration to be read, but there is none to be read"
    ]


FAILED = ev.GenerationFailed(1, "no module named jobs")


def test_why_a_first_generation_fails_is_left_to_the_last_word() -> None:
    reason = "no module named jobs"
    assert told(ev.DeployRequested("start"), FAILED, aborted(1, reason))[1:] == [
        "generation 1 cannot be prepared",
        "deploy of generation 1 aborted",
    ]


def test_why_a_later_generation_fails_is_told_once() -> None:
    reason = "no module named jobs"
    facts = (ev.DeployRequested("HUP"), ev.GenerationFailed(2, reason), aborted(2, reason))
    assert told(*UP, ev.DeployConcluded(1, Outcome.SUCCEEDED, "all are ready"), *facts)[-2:] == [
        "generation 2 cannot be prepared",
        f"deploy of generation 2 aborted: {reason}; the old generation keeps serving",
    ]


def test_why_a_generation_fails_is_told_at_once_when_no_deploy_will() -> None:
    assert told(*UP, ev.DeployConcluded(1, Outcome.SUCCEEDED, "all are ready"), FAILED)[-1] == (
        "generation 1 cannot be prepared: no module named jobs"
    )
    assert told(ev.DeployRequested("start"), ev.StopRequested("TERM"), FAILED)[-1] == (
        "generation 1 cannot be prepared: no module named jobs"
    )


def test_a_first_deploy_that_is_stopped_says_so() -> None:
    facts = (ev.DeployRequested("start"), ev.StopRequested("TERM"), aborted(1, "stop by TERM"))
    assert told(*facts)[-1] == "deploy of generation 1 aborted: stop by TERM"


def aborted(generation: int, reason: str) -> ev.DeployConcluded:
    return ev.DeployConcluded(generation, Outcome.ABORTED, reason)
