"""The verbs that talk to an instance, against a fake one on a real socket."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from sengu.cli import ls, reload, stop, which
from sengu.cli.main import run
from sengu.config.instance import RunPlaces
from sengu.control import api
from sengu.control.api import ServiceState
from sengu.control.client import ControlClient, EventStream
from sengu.model.observed import Outcome
from tests.unit.fake_instance import NOT_READ, FakeInstance, concluded, make_status, record, worker

Capture = pytest.CaptureFixture[str]
StartInstance = Callable[[str], FakeInstance]


class Places(RunPlaces, frozen=True):
    """The run directory of the test, whoever runs it."""

    @property
    def directories(self) -> tuple[str, ...]:
        return (f"{self.runtime_dir}/sengu",)


@pytest.fixture
def run_directory(free_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where instances are looked for; the current directory is named `web`."""
    cwd = free_path / "web"
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    places = Places(os.geteuid(), str(cwd), str(free_path))
    for module in (which, ls):
        monkeypatch.setattr(module, "run_places", lambda _environ: places)
    directory = free_path / "sengu"
    directory.mkdir(0o700)
    return directory


@pytest.fixture
def start_instance(run_directory: Path) -> Iterator[StartInstance]:
    started = []

    def start(name: str) -> FakeInstance:
        instance = FakeInstance(run_directory / f"{name}.sock")
        instance.statuses = [make_status(name=name)]
        started.append(instance)
        return instance

    yield start
    for instance in started:
        instance.close()


@pytest.fixture
def web(start_instance: StartInstance) -> FakeInstance:
    return start_instance("web")


def deployed(outcome: Outcome = Outcome.SUCCEEDED, **fields: str) -> list[api.Record]:
    return [
        record(41, "worker_started", worker=8, generation=5, slot=0, pid=5000),
        record(42, "worker_ready", worker=8),
        concluded(43, outcome, **fields),
    ]


def test_reload_waits_for_success_and_shows_what_happens(web: FakeInstance, capfd: Capture) -> None:
    web.records, web.stays_open = deployed(), True
    assert run(["reload"]) == 0
    out, err = capfd.readouterr()
    assert re.fullmatch(r"generation 5 serves, after [\d.]+ s: so it went\n", out)
    assert err.splitlines() == ["worker_started 8", "worker_ready 8", "deploy_concluded "]
    assert "GET /v1/events?follow=true&since=40" in web.asked


def test_reload_tells_why_it_failed_in_the_workers_own_words(
    web: FakeInstance, capfd: Capture
) -> None:
    words = "Traceback\n\x1b[2Jboom"
    web.records, web.stays_open = (
        deployed(Outcome.ABORTED, reason="3 failed", last_words=words),
        True,
    )
    assert run(["reload"]) == 1
    err = capfd.readouterr().err
    assert "was aborted: 3 failed; generation 4 keeps serving" in err
    assert "  | Traceback\n  | \\x1b[2Jboom\n" in err


def test_reload_that_is_superseded_has_its_own_exit_code(web: FakeInstance, capfd: Capture) -> None:
    web.records, web.stays_open = deployed(Outcome.SUPERSEDED), True
    assert run(["reload"]) == 4
    assert "superseded" in capfd.readouterr().err


def test_reload_is_not_fooled_by_the_end_of_another_deploy(
    web: FakeInstance, capfd: Capture
) -> None:
    web.records = [concluded(41, Outcome.ABORTED, generation=4), *deployed()[2:]]
    assert run(["reload"]) == 0


def test_reload_ends_when_its_time_is_over_and_says_what_goes_on(
    web: FakeInstance, capfd: Capture
) -> None:
    web.stays_open = True
    assert run(["reload", "--timeout", "1ms"]) == 5
    err = capfd.readouterr().err
    assert "timed out after 0.001 s; the deploy of generation 5 goes on" in err


def test_reload_that_is_interrupted_says_what_goes_on(
    web: FakeInstance, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    def interrupt(_stream: EventStream, _timeout: float | None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(EventStream, "read", interrupt)
    assert run(["reload"]) == 130
    assert "interrupted; the deploy of generation 5 goes on" in capfd.readouterr().err


def test_reload_fails_when_the_instance_goes_away(web: FakeInstance, capfd: Capture) -> None:
    web.records = deployed()[:2]
    assert run(["reload"]) == 1
    assert "went away before generation 5 was deployed" in capfd.readouterr().err


def test_reload_goes_on_when_the_server_is_replaced(web: FakeInstance, capfd: Capture) -> None:
    web.records, web.stays_open = deployed(), True
    web.cuts = [0, 0, 40, NOT_READ, 300]  # twice as it is asked, then three times as it tells
    assert run(["reload"]) == 0
    assert capfd.readouterr().err.splitlines() == [
        "worker_started 8",
        "worker_ready 8",
        "deploy_concluded ",
    ]
    assert len({one for one in web.asked if one.startswith("POST")}) == 1


def test_reload_without_waiting_only_asks(web: FakeInstance, capfd: Capture) -> None:
    assert run(["reload", "--no-wait"]) == 0
    assert capfd.readouterr().out == "generation 5 is being deployed\n"
    (asked,) = web.asked
    assert re.fullmatch(
        r'POST /v1/reload {"wait":false,"token":"[0-9a-f]{32}","immediate":false}', asked
    )


@pytest.mark.parametrize("old", [worker(0, 4, "stopping"), worker(0, 4, "starting", pid=None)])
def test_reload_drained_comes_back_when_the_old_workers_are_gone(
    web: FakeInstance, capfd: Capture, old: api.WorkerStatus
) -> None:
    new = worker(0, 5)
    web.records = [*deployed(), record(44, "worker_exited", worker=1)]
    web.stays_open = True
    web.statuses = [make_status(), make_status(workers=(old, new)), make_status(workers=(new,))]
    assert run(["reload", "--drained"]) == 0
    assert capfd.readouterr().err.endswith("worker_exited 1\n")


def test_a_refusal_is_told_in_the_instances_words(web: FakeInstance, capfd: Capture) -> None:
    web.reactions[api.RELOAD_PATH] = lambda _body: api.Problem("it is being stopped")
    assert run(["reload"]) == 1
    assert capfd.readouterr().err == "sengu: error: it is being stopped\n"


@pytest.mark.parametrize(("change", "workers"), [("5", 5), ("+1", 3), ("-1", 1), ("0", 0)])
def test_scale_takes_a_number_or_a_difference(
    web: FakeInstance, capfd: Capture, change: str, workers: int
) -> None:
    assert run(["scale", change, "--no-wait"]) == 0
    assert f'POST /v1/scale {{"workers":{workers}}}' in web.asked


def test_scale_waits_until_so_many_are_ready(web: FakeInstance, capfd: Capture) -> None:
    three = (worker(0, 4), worker(1, 4), worker(2, 4, "starting"))
    web.statuses = [make_status(), make_status(workers=three)]
    web.statuses.append(make_status(workers=(*three[:2], worker(2, 4))))
    web.records, web.stays_open = [record(41, "worker_ready", worker=3)], True
    assert run(["scale", "3"]) == 0
    out, err = capfd.readouterr()
    assert (out, err) == ("web has 3 workers, it had 2\n", "worker_ready 3\n")


def test_scale_that_takes_too_long_says_so(web: FakeInstance, capfd: Capture) -> None:
    web.stays_open = True
    assert run(["scale", "3", "--timeout", "1ms"]) == 5


def seen_as(monkeypatch: pytest.MonkeyPatch, pid: int) -> None:
    """The instance, which is this very process, seems to be another."""
    monkeypatch.setattr(ControlClient, "process_id", lambda _self: pid)


@pytest.mark.parametrize(
    ("fields", "said", "code"),
    [
        ({}, "web: ready, generation 4 with 1 ready worker", 0),
        ({"state": ServiceState.DEPLOYING}, "web: ready, generation 4 with 1 ready worker", 0),
        ({"state": ServiceState.STOPPING}, "web: not ready, it is stopping", 1),
        ({"generation": 0}, "web: not ready, its first generation is starting", 1),
        ({"workers": (worker(0, 4, "starting"),)}, "web: not ready, none of its workers is", 1),
        ({"workers": (worker(0, 4, "draining"),)}, "web: not ready, none of its workers is", 1),
        ({"workers": ()}, "web: not ready, none of its workers is", 1),
    ],
)
def test_readiness_is_a_line_and_an_exit_code(
    web: FakeInstance, capfd: Capture, fields: dict[str, Any], said: str, code: int
) -> None:
    web.statuses = [make_status(**{"workers": (worker(0, 4),), **fields})]
    assert run(["status", "--ready"]) == code
    assert capfd.readouterr().out == f"{said}\n"


def test_readiness_with_json_is_an_exit_code(web: FakeInstance, capfd: Capture) -> None:
    web.statuses = [make_status(state=ServiceState.STOPPING)]
    assert run(["status", "--ready", "--json"]) == 1
    assert json.loads(capfd.readouterr().out)["state"] == "stopping"


def test_what_serves_on_and_who_drains_is_shown_with_its_time(
    web: FakeInstance, capfd: Capture
) -> None:
    draining = msgspec.structs.replace(worker(0, 4, "draining"), drain_seconds=7.0)
    web.statuses = [make_status(lame_seconds=12.0, workers=(draining,))]
    assert run(["status"]) == 0
    out = capfd.readouterr().out
    assert "it serves on for 12 s, then it stops" in out
    assert "asked to stop in 7.0 s at the latest" in out


def test_stop_waits_until_the_process_is_gone(
    web: FakeInstance, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    with subprocess.Popen(["sleep", "600"]) as process:

        def end(_body: bytes) -> api.StopAccepted:
            process.kill()
            return api.StopAccepted()

        seen_as(monkeypatch, process.pid)
        web.reactions[api.STOP_PATH] = end
        assert run(["stop", "--now"]) == 0
    asked = web.asked[-1]
    assert re.fullmatch(r'POST /v1/stop {"immediate":true,"token":"[0-9a-f]{32}"}', asked)


@pytest.mark.parametrize("cuts", [[0], [NOT_READ, 0], [7]])
def test_stop_of_an_instance_that_ends_before_it_can_say_so_is_done(
    web: FakeInstance, monkeypatch: pytest.MonkeyPatch, capfd: Capture, cuts: list[int]
) -> None:
    def end(_body: bytes) -> api.StopAccepted:
        web.die()
        return api.StopAccepted()

    def tell() -> api.Status:
        web.cuts = [*cuts]
        return make_status()

    seen_as(monkeypatch, 0)
    monkeypatch.setattr(web, "next_status", tell)
    web.reactions[api.STOP_PATH] = end
    assert run(["stop"]) == 0
    assert web.asked[-1].startswith("POST")


def test_stop_waits_for_the_main_process_though_a_server_has_bound_the_socket_anew(
    web: FakeInstance, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    held: list[int] = []
    monkeypatch.setattr(stop, "_hold", held.append)
    seen_as(monkeypatch, 77)
    web.statuses = [make_status(pid=4242, server_pid=77)]
    assert run(["stop"]) == 0
    assert held == [4242]


def test_stop_of_who_serves_on_as_a_lame_duck_says_how_to_end_that(
    web: FakeInstance, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    web.statuses = [make_status(), make_status(lame_seconds=30.0)]
    with subprocess.Popen(["sleep", "600"]) as process:

        def end(_body: bytes) -> api.StopAccepted:
            process.kill()
            return api.StopAccepted()

        seen_as(monkeypatch, process.pid)
        web.reactions[api.STOP_PATH] = end
        assert run(["stop"]) == 0
    said = "it serves on for 30 s before (--lame-duck); `sengu stop web` once more ends that"
    assert said in capfd.readouterr().err


def test_stop_that_takes_too_long_says_so(web: FakeInstance, capfd: Capture) -> None:
    assert run(["stop", "--timeout", "1ms"]) == 5
    assert "goes on stopping" in capfd.readouterr().err


@pytest.mark.parametrize("pid", [0, 2**22 + 1])  # the second is above any pid_max
def test_stop_of_a_process_it_cannot_see_waits_for_the_events_to_end(
    web: FakeInstance, monkeypatch: pytest.MonkeyPatch, capfd: Capture, pid: int
) -> None:
    seen_as(monkeypatch, pid)
    assert run(["stop"]) == 0


def test_status_is_a_table_with_what_is_wrong(web: FakeInstance, capfd: Capture) -> None:
    backoff = worker(
        1, 4, "backoff", pid=None, uptime_seconds=None, retry_in_seconds=4.0,
        restarts=6, last_failure="exit status 1", status="\x1b[31m",
    )  # fmt: skip
    web.statuses = [
        make_status(
            workers=(worker(0, 4), backoff),
            deploy=api.DeployStatus(5, "HUP", 2, "signal KILL"),
            last_deploy=api.PastDeploy(4, Outcome.SUCCEEDED, "all ready", 0),
        )
    ]
    assert run(["status"]) == 0
    out = capfd.readouterr().out
    assert out.startswith("web: serving generation 4, 2 workers wanted, up 1 min 30 s, pid 4242")
    assert "command    ./server '--flag x'" in out
    assert "0.0.0.0:8080 (tcp-8080, descriptor 3)" in out
    assert "generation 5, asked for by HUP; 2 failures, the last: signal KILL" in out
    assert re.search(r"generation 4 succeeded \d+ d \d+ h ago: all ready", out)
    *_, headings, first, second = (line.split() for line in out.splitlines())
    assert headings[:5] == ["SERVICE", "GENERATION", "SLOT", "PID", "STATE"]
    assert first == ["web", "4", "0", "4000", "ready", "7.0", "s", "0"]
    assert second[:7] == ["web", "4", "1", "-", "backoff", "-", "6"]
    assert out.endswith("again in 4.0 s; \\x1b[31m; last failure: exit status 1\n")


@pytest.mark.parametrize(
    ("servers", "found", "line"),
    [
        (2, (4, 0, 0, 0), "4243, the 2nd (took over 12 s ago: 4 workers lived on)"),
        (
            13,
            (1, 2, 3, 4),
            "4243, the 13th (took over 12 s ago: 1 worker lived on, 2 had ended, "
            "3 killed as unwanted, 4 asked for again)",
        ),
    ],
)
def test_status_tells_of_a_server_that_is_not_the_first(
    web: FakeInstance, capfd: Capture, servers: int, found: tuple[int, int, int, int], line: str
) -> None:
    adopted = api.AdoptionStatus(time.time() - 12.3, *found)
    web.statuses = [make_status(server_pid=4243, servers=servers, adopted=adopted)]
    assert run(["status"]) == 0
    assert f"\n  server     {line}\n" in capfd.readouterr().out


def test_status_says_nothing_of_the_first_server(web: FakeInstance, capfd: Capture) -> None:
    web.statuses = [make_status(server_pid=4243)]
    assert run(["status"]) == 0
    assert "4243" not in capfd.readouterr().out


def test_status_counts_requests_when_workers_tell_of_them(
    web: FakeInstance, capfd: Capture
) -> None:
    busy = worker(0, 4, requests=12, busy=1, connections=3, doing="GET /\x1bslow for 3.1 s")
    idle = worker(1, 4, requests=7, busy=0, connections=0)
    new = worker(2, 4, "starting")
    web.statuses = [make_status(workers=(busy, idle, new))]
    assert run(["status"]) == 0
    *_, headings, first, second, third = capfd.readouterr().out.splitlines()
    assert headings.split()[-5:] == ["REQUESTS", "BUSY", "CONNECTIONS", "DOING", "NOTE"]
    assert first.split()[8:] == ["12", "1", "3", "GET", "/\\x1bslow", "for", "3.1", "s"]
    assert second.split()[8:] == ["7", "0", "0", "idle"]
    assert third.split()[8:] == ["-", "-", "-", "-"]


def test_status_of_other_programs_has_nothing_of_requests(
    web: FakeInstance, capfd: Capture
) -> None:
    assert run(["status"]) == 0
    assert "REQUESTS" not in capfd.readouterr().out


def test_status_says_how_long_a_worker_has_left_to_stop(web: FakeInstance, capfd: Capture) -> None:
    web.statuses = [make_status(workers=(worker(0, 4, "stopping", kill_in_seconds=12.0),))]
    assert run(["status"]) == 0
    assert capfd.readouterr().out.endswith("killed in 12 s if it is still there\n")


def test_status_does_not_call_an_aborted_generation_deployed(
    web: FakeInstance, capfd: Capture
) -> None:
    web.statuses = [make_status(last_deploy=api.PastDeploy(5, Outcome.ABORTED, "3 failures", 0))]
    assert run(["status"]) == 0
    out = capfd.readouterr().out
    assert re.search(r"  last try   generation 5 aborted \d+ d \d+ h ago: 3 failures", out)
    assert "deployed" not in out


def test_status_tells_of_sockets_that_workers_have_asked_for(
    web: FakeInstance, capfd: Capture
) -> None:
    shared = api.ManagedStatus("0.0.0.0:1234", (3, 4))
    web.statuses = [make_status(managed=(shared, api.ManagedStatus("/run/app.sock", (4,))))]
    assert run(["status"]) == 0
    out = capfd.readouterr().out
    assert "  managed    0.0.0.0:1234, asked for by generations 3, 4\n" in out
    assert "  managed    /run/app.sock, asked for by generation 4\n" in out


def test_status_as_json_is_the_apis_answer(web: FakeInstance, capfd: Capture) -> None:
    assert run(["status", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["workers"][1]["pid"] == 4001


def test_events_are_told_a_line_each(web: FakeInstance, capfd: Capture) -> None:
    web.records = deployed()
    assert run(["events"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [re.sub(r"\d{4}-\S+ \S+", "T", line) for line in lines] == [
        "   41  T  worker_started 8",
        "   42  T  worker_ready 8",
        "   43  T  deploy_concluded ",
    ]


@pytest.mark.parametrize(
    ("args", "query"),
    [
        ([], "?follow=false&since=0"),
        (["--since", "41"], "?follow=false&since=41"),
        (["--follow"], "?follow=true"),
        (["-f", "--since", "41"], "?follow=true&since=41"),
    ],
)
def test_events_asks_for(web: FakeInstance, args: list[str], query: str, capfd: Capture) -> None:
    assert run(["events", *args]) == 0
    assert web.asked == [f"GET /v1/events{query}"]


def test_a_reader_that_goes_away_while_events_are_told_is_no_failure(web: FakeInstance) -> None:
    web.records = deployed() * 1000
    with subprocess.Popen(
        [sys.executable, "-m", "sengu", "events", "--control", str(web.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_events_as_json_are_flat_objects(web: FakeInstance, capfd: Capture) -> None:
    web.records = deployed()[:1]
    assert run(["events", "--json"]) == 0
    (line,) = capfd.readouterr().out.splitlines()
    assert json.loads(line)["type"] == "worker_started"
    assert json.loads(line)["pid"] == 5000


def test_ls_marks_the_dead(
    web: FakeInstance, run_directory: Path, start_instance: StartInstance, capfd: Capture
) -> None:
    start_instance("dead").close()
    assert run(["ls"]) == 0
    _, dead, alive = (line.split() for line in capfd.readouterr().out.splitlines())
    assert dead[:2] == ["dead", "stale"]
    assert alive == ["web", "serving", "4", "2/2", "4242", "1", "min", "30", "s", str(web.path)]
    assert run(["ls", "--json"]) == 0
    listing = json.loads(capfd.readouterr().out)
    assert [one["state"] for one in listing] == ["stale", "serving"]


def test_a_run_directory_that_others_may_write_to_is_not_trusted(
    web: FakeInstance, run_directory: Path, capfd: Capture
) -> None:
    run_directory.chmod(0o777)
    assert run(["status"]) == 3


@pytest.mark.parametrize("args", [["web"], ["--name", "web"], ["web", "--name", "web"], []])
def test_an_instance_is_found_by_name_or_directory(
    web: FakeInstance, start_instance: StartInstance, args: list[str], capfd: Capture
) -> None:
    start_instance("other")
    assert run(["status", *args]) == 0
    out, err = capfd.readouterr()
    assert out.startswith("web: ")
    assert err == ""


def test_the_only_instance_is_taken_and_named(
    start_instance: StartInstance, capfd: Capture
) -> None:
    start_instance("other")
    start_instance("dead").close()
    assert run(["status"]) == 0
    assert capfd.readouterr().err == "sengu: using 'other', the only instance that runs\n"


@pytest.mark.parametrize("verb", [["stop"], ["reload"], ["scale", "2"], ["upgrade"]])
def test_what_changes_an_instance_is_never_guessed(
    start_instance: StartInstance, capfd: Capture, verb: list[str]
) -> None:
    start_instance("other")
    assert run(verb) == 3
    assert capfd.readouterr().err.endswith("name one of those that run: other\n")


def test_of_several_instances_none_is_guessed(
    start_instance: StartInstance, capfd: Capture
) -> None:
    start_instance("a")
    start_instance("b")
    assert run(["status"]) == 3
    assert capfd.readouterr().err.endswith("name one of those that run: a, b\n")


def test_an_instance_is_found_by_its_control_socket(web: FakeInstance, capfd: Capture) -> None:
    moved = web.path.rename(web.path.with_name("x"))
    assert run(["status", "--control", str(moved)]) == 0


NOT_RUNNING = [
    (["status"], "no instance is running; start one"),
    (["status", "nix"], "there is no instance 'nix'; none is running"),
    (["status", "--control", "/nowhere/x.sock"], "no instance listens on /nowhere/x.sock"),
]


@pytest.mark.usefixtures("run_directory")
@pytest.mark.parametrize(("args", "hint"), NOT_RUNNING)
def test_when_there_is_no_such_instance(args: list[str], hint: str, capfd: Capture) -> None:
    assert run(args) == 3
    (line,) = capfd.readouterr().err.splitlines()
    assert hint in line


def test_an_instance_that_died_is_told_from_one_that_never_was(
    start_instance: StartInstance, capfd: Capture
) -> None:
    start_instance("dead").close()
    assert run(["status", "dead"]) == 3
    assert "'dead' has died" in capfd.readouterr().err


BAD_INPUT = [
    (["strat"], "did you mean start?"),
    (["xyzzy"], "there is no verb 'xyzzy'; see sengu --help"),
    (["./server"], "to run a program: sengu start -- ./server"),
    (["myapp:app"], "to serve an application: sengu serve myapp:app"),
    (["--prot"], "there is no option --prot"),
    (["reload", "--nowait"], "did you mean --no-wait or --now?"),
    (["reload", "a", "b"], "unexpected extra argument"),
    (["reload", "a", "--name", "b"], "give one of them"),
    (["reload", "a", "--control", "b"], "not both"),
    (["reload", "a/b"], "plain file name"),
    (["reload", "--no-wait", "--drained"], "leave out"),
    (["reload", "--no-wait", "--timeout", "1"], "leave out"),
    (["reload", "--timeout", "soon"], "not a duration"),
    (["reload", "--timeout", "0"], "more than 0"),
    (["upgrade", "--timeout", "0"], "more than 0"),
    (["upgrade", "a", "b"], "unexpected extra argument"),
    (["scale"], "missing argument"),
    (["scale", "x"], "write 4, +1 or -1"),
    (["scale", "-3"], "take fewer off"),
    (["scale", "x"], "as in sengu scale 4 [NAME]"),
    (["scale", "web", "6"], "the number comes first; write sengu scale 6 web"),
    (["scale", "web", "+2"], "write sengu scale +2 web"),
    (["scale", "--foo"], "there is no option --foo; write sengu scale 4, or see"),
    (["scale", "--workers", "6", "web"], "no option --workers; write sengu scale 6 web"),
    (["scale", "--workers=6", "web"], "no option --workers; write sengu scale 4 web"),
    (["scale", "6", "--nowait"], "there is no option --nowait; did you mean --no-wait?"),
    (["scale", "6", "web", "--timout=3"], "did you mean --timeout?"),
    (["scale", "6", "web", "x"], "unexpected extra argument (x)"),
    (["work", "jobs:C", "--worker", "3"], "did you mean --workers?"),
    (["status", "--user", "x"], "there is no option --user; see sengu status --help"),
    (["events", "--since", "x"], "not the number of an event"),
    (["events", "--since"], "requires an argument"),
    (["reload", "--timeout"], "see sengu reload --help"),
    (["completion"], "bash, zsh, fish"),
    (["completion", "tcsh"], "'bash', 'zsh', 'fish'"),
    (["ls", "x"], "unexpected extra argument"),
]


@pytest.mark.usefixtures("web")
@pytest.mark.parametrize(("args", "hint"), BAD_INPUT, ids=[" ".join(row[0]) for row in BAD_INPUT])
def test_bad_input_gets_one_line_and_exit_code_2(
    args: list[str], hint: str, capfd: Capture
) -> None:
    assert run(args) == 2
    out, err = capfd.readouterr()
    (line,) = err.splitlines()
    assert line.startswith("sengu: error: ")
    assert hint in line
    assert out == ""


VERBS = [
    "serve",
    "consume",
    "start",
    "reload",
    "status",
    "scale",
    "upgrade",
    "stop",
    "events",
    "publish",
    "ls",
    "demo",
    "completion",
]


@pytest.mark.parametrize("verb", VERBS)
def test_help_teaches_with_examples_and_exit_codes(verb: str, capfd: Capture) -> None:
    assert run([verb, "--help"]) == 0
    out = capfd.readouterr().out
    assert out.startswith(f"Usage: sengu {verb} ")
    assert "\nExamples:\n  " in out
    assert "\nExit codes:\n  0" in out


def test_the_overview_names_every_verb(capfd: Capture) -> None:
    assert run([]) == 0
    out = capfd.readouterr().out
    assert [verb for verb in VERBS if f"\n  {verb} " in out] == VERBS


def in_a_new_process(code: str, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("verb", ["status", "reload", "ls", "start", "serve"])
def test_a_verb_loads_nothing_that_it_does_not_need(verb: str) -> None:
    code = (
        "import sys; from sengu.cli.main import run; run(sys.argv[1:] or "
        f"[{verb!r}, '--control', '/nowhere/x'] if {verb!r} != 'ls' else ['ls']); "
        "print('LOADED', *sorted(sys.modules))"
    )
    loaded = in_a_new_process(code).rpartition("LOADED ")[2].split()
    assert "rich" not in loaded
    assert "sengu.demo.main" not in loaded
    assert not [name for name in loaded if name.startswith("sengu.server")]
    if verb in ("start", "serve"):
        assert not {"http.client", "ssl"}.intersection(loaded)
    else:
        assert "sengu.config.launch" not in loaded


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_for_the_shell(shell: str, capfd: Capture) -> None:
    assert run(["completion", shell]) == 0
    assert f"{shell}_complete" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("sengu rel", {"plain,reload"}),
        ("sengu up", {"plain,upgrade"}),
        ("sengu start --on-server-loss k", {"plain,keep"}),
        ("sengu start --ready-", {"plain,--ready-timeout"}),
        ("sengu start --strategy ro", {"plain,rolling"}),
        ("sengu start --pid-file /x", {"file,/x"}),
        ("sengu start --port 80 -- unsh", {"plain,unshare"}),
        ("sengu start --port 80 -- ./x", {"file,./x"}),
        ("sengu start python3 x", {"file,x"}),
        ("sengu reload --control /x", {"file,/x"}),
        ("sengu serve --interface a", {"plain,auto", "plain,asgi"}),
        ("sengu serve --trusted-proxy u", {"plain,unix"}),
        ("sengu serve --reload-dir x", {"dir,x"}),
    ],
)
def test_shells_complete(words: str, found: set[str]) -> None:
    code = "from sengu.cli.main import main; main()"
    environ = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    out = in_a_new_process(code, _SENGU_COMPLETE="bash_complete", **environ)
    assert set(out.split()) == found


def test_shells_complete_the_names_of_instances(
    web: FakeInstance, start_instance: StartInstance
) -> None:
    start_instance("worker")
    start_instance("other")
    parameter = reload.command.params[0]
    items = which.complete_names(click.Context(reload.command), parameter, "w")
    assert [item.value for item in items] == ["web", "worker"]
