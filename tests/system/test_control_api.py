"""The control socket as docs/openapi.json describes it, and the verbs that use it."""

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support import (
    PROGRAM,
    WAIT_SECONDS,
    Instance,
    Reply,
    Sengu,
    UnixConnection,
    environment,
    needs_root,
    requires,
)
from tests.system.openapi import DOCUMENT, answer_schema, problems
from tests.system.peers import Witnesses, concluded, kept_events, kill
from tests.system.puppets import build

NOTIFY = ("--ready", "notify")

Call = Callable[..., Reply]


@pytest.fixture
def web(sengu: Sengu, free_path: Path) -> Instance:
    """Two workers; with the file `broken` in `free_path`, new ones die with a word."""
    script = f'test ! -e {free_path}/broken || {{ echo boom >&2; exit 3; }}; exec "$0"'
    options = (*NOTIFY, "--interval", "20", "--port", "127.0.0.1:0")  # a long back-off
    command = ("sh", "-c", script, build("puppet"))
    return sengu.start(*options, "--workers", "2", "--attempts", "1", "--", *command).wait_ready()


@pytest.fixture
def call(web: Instance) -> Call:
    """Calls the API by curl, and checks the answer against its description."""
    curl = requires("curl")

    def call(method: str, path: str, body: object = None, raw: str | None = None) -> Reply:
        data = raw if raw is not None else None if body is None else json.dumps(body)
        done = subprocess.run(
            [
                *(curl, "-sS", "--unix-socket", str(web.control_path), "-X", method),
                *("-w", "\n%{http_code} %{content_type}", f"http://sengu{path}"),
                *([] if data is None else ["--data-binary", "@-"]),
            ],
            input=data,
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            check=True,
        )
        text, _, trailer = done.stdout.rpartition("\n")
        status, kind = trailer.split(" ", 1)
        assert kind == "application/json"
        reply = Reply(int(status), json.loads(text))
        check(method, path.partition("?")[0], reply)
        return reply

    return call


def check(method: str, path: str, reply: Reply) -> None:
    documented = path in DOCUMENT["paths"] and method.lower() in DOCUMENT["paths"][path]
    # What no path describes is answered with a problem, as every other error.
    schema = answer_schema(*((method, path) if documented else ("GET", "/v1/status")), reply.status)
    assert problems(reply.body, schema) == [], reply.body


def test_status_is_as_described_in_every_state(web: Instance, call: Call, free_path: Path) -> None:
    status = call("GET", "/v1/status")
    assert status.status == 200
    assert (status.body["name"], status.body["pid"]) == (web.name, web.pid)
    assert status.body["state"] == "serving"
    assert [one["name"] for one in status.body["listeners"]] == ["tcp-0"]
    assert re.fullmatch(r"127\.0\.0\.1:[1-9]\d*", status.body["listeners"][0]["address"])
    assert [worker["slot"] for worker in status.body["workers"]] == [0, 1]
    call("POST", "/v1/reload", {})
    deploying = call("GET", "/v1/status")
    assert deploying.body["state"] in ("deploying", "serving")
    web.wait_event(concluded(2))
    (free_path / "broken").touch()
    for worker in call("GET", "/v1/status").body["workers"]:
        if worker["generation"] == 2:
            kill(worker["pid"])
    web.wait_event(lambda event: "failure 2 in a row" in event["text"])
    body = call("GET", "/v1/status").body
    waiting = [worker for worker in body["workers"] if worker["state"] == "backoff"]
    assert waiting
    assert waiting[0]["last_failure"] == "exit status 3"
    assert waiting[0]["pid"] is None
    assert body["last_deploy"]["outcome"] == "succeeded"


def test_reload_answers_at_once_or_with_the_outcome(
    web: Instance, call: Call, free_path: Path
) -> None:
    accepted = call("POST", "/v1/reload")
    assert accepted.status == 202
    assert accepted.body["generation"] == 2
    web.wait_event(concluded(2), since=accepted.body["last_event"])
    succeeded = call("POST", "/v1/reload", {"wait": True})
    assert (succeeded.status, succeeded.body["generation"]) == (200, 3)
    assert succeeded.body["outcome"] == "succeeded"
    (free_path / "broken").touch()
    aborted = call("POST", "/v1/reload", {"wait": True})
    assert (aborted.status, aborted.body["generation"]) == (409, 4)
    assert aborted.body["outcome"] == "aborted"
    assert aborted.body["reason"] == "exit status 3"
    assert aborted.body["last_words"] == "boom"
    assert call("GET", "/v1/status").body["generation"] == 3


def test_scale_and_stop_are_done_as_asked(web: Instance, call: Call) -> None:
    scaled = call("POST", "/v1/scale", {"workers": 3})
    assert (scaled.status, scaled.body) == (202, {"workers": 3})
    web.wait_event(lambda event: event["type"] == "worker_ready" and event["worker"] == 3)
    assert len(call("GET", "/v1/status").body["workers"]) == 3
    stopped = call("POST", "/v1/stop", {})
    assert (stopped.status, stopped.body) == (202, {})
    assert web.wait() == 0


def test_an_immediate_stop_kills(sengu: Sengu, witnesses: Witnesses) -> None:
    instance = sengu.start(*NOTIFY, "--", *witnesses.command("hold")).wait_ready()
    witnesses.wait()
    assert instance.control("POST", "/v1/stop", {"immediate": True}).status == 202
    assert instance.wait() == 0
    assert witnesses.unread() == []  # no TERM: a witness would have told


def test_a_deploy_or_a_scale_that_is_asked_for_during_a_stop_is_refused(
    sengu: Sengu, witnesses: Witnesses
) -> None:
    instance = sengu.start(*NOTIFY, "--", *witnesses.command("hold")).wait_ready()
    pid = witnesses.wait()["pid"]
    assert instance.control("POST", "/v1/stop").status == 202
    witnesses.wait("TERM", pid=pid)
    assert instance.status()["state"] == "stopping"
    refused = instance.control("POST", "/v1/reload", {"wait": True})
    assert refused.status == 409
    assert "being stopped" in refused.body["error"]
    assert instance.control("POST", "/v1/scale", {"workers": 3}).status == 409
    for verb in (("reload",), ("scale", "3")):
        told = instance.cli(*verb)
        assert told.returncode == 1
        assert "being stopped" in told.stderr
    kill(pid)
    assert instance.wait() == 0


@pytest.fixture
def reluctant(sengu: Sengu, witnesses: Witnesses, free_path: Path) -> Instance:
    """While there is the file `slow` in `free_path`, new workers say so and are never ready."""
    script = f'test ! -e {free_path}/slow || {{ echo slow >&2; exec sleep 600; }}; exec "$@"'
    args = (*NOTIFY, "--", "sh", "-c", script, "sh", *witnesses.command())
    return sengu.start(*args).wait_ready()


def test_a_superseded_deploy_is_a_conflict(reluctant: Instance, free_path: Path) -> None:
    instance = reluctant
    (free_path / "slow").touch()
    with closing(UnixConnection(instance.control_path, WAIT_SECONDS)) as connection:
        connection.request("POST", "/v1/reload", '{"wait": true}')
        instance.wait_for_line("^slow$")
        (free_path / "slow").unlink()
        assert instance.control("POST", "/v1/reload", {"wait": True}).status == 200
        response = connection.getresponse()
        assert response.status == 409
        assert json.loads(response.read())["outcome"] == "superseded"


@pytest.mark.parametrize(
    ("method", "path", "raw", "status", "word"),
    [
        ("POST", "/v1/reload", "{", 400, "body"),
        ("POST", "/v1/reload", '{"wait": "yes"}', 400, "wait"),
        ("POST", "/v1/reload", "[]", 400, "body"),
        ("POST", "/v1/scale", "", 400, "body"),
        ("POST", "/v1/scale", "{}", 400, "workers"),
        ("POST", "/v1/scale", '{"workers": -1}', 400, "workers"),
        ("POST", "/v1/scale", '{"workers": 1.5}', 400, "workers"),
        ("POST", "/v1/scale", '{"workers": 99999999999999999999}', 400, "workers"),
        ("POST", "/v1/scale", '{"workers": 1000000000}', 400, "workers"),
        ("POST", "/v1/stop", '{"immediate": 1}', 400, "immediate"),
        ("GET", "/v1/events?since=now", None, 400, "since"),
        ("GET", "/v1/events?since=-1", None, 400, "since"),
        ("GET", "/v1/nothing", None, 404, "/v1/status"),
        ("GET", "/", None, 404, "/v1/status"),
        ("GET", "/v1/reload", None, 405, "POST"),
        ("POST", "/v1/status", "{}", 405, "GET"),
        ("DELETE", "/v1/scale", None, 405, "POST"),
        ("POST", "/v1/reload", "x" * 70_000, 413, "too long"),
    ],
)
def test_a_wrong_request_is_answered_with_what_is_wrong(
    web: Instance, call: Call, method: str, path: str, raw: str | None, status: int, word: str
) -> None:
    before = web.status()
    reply = call(method, path, raw=raw)
    assert reply.status == status
    assert word in reply.body["error"]
    assert "\n" not in reply.body["error"]
    assert web.status()["last_event"] == before["last_event"]
    assert web.status()["workers_wanted"] == 2


def test_405_says_what_is_allowed(web: Instance) -> None:
    with closing(UnixConnection(web.control_path, WAIT_SECONDS)) as connection:
        connection.request("PUT", "/v1/status")
        assert connection.getresponse().headers["Allow"] == "GET"


def test_a_connection_serves_many_requests_and_survives_garbage_on_others(web: Instance) -> None:
    with closing(UnixConnection(web.control_path, WAIT_SECONDS)) as connection:
        for _ in range(3):
            connection.request("GET", "/v1/status")
            assert json.loads(connection.getresponse().read())["name"] == web.name
            with socket.socket(socket.AF_UNIX) as garbage:
                garbage.settimeout(WAIT_SECONDS)
                garbage.connect(str(web.control_path))
                garbage.sendall(b"\x16\x03\x01 garbage\r\n\r\n")
                answer = b"".join(iter(lambda: garbage.recv(65536), b""))
                assert answer.startswith(b"HTTP/1.1 400 ")


def test_events_are_server_sent_and_as_described(web: Instance) -> None:
    curl = requires("curl")
    base = [curl, "-sS", "-N", "--unix-socket", str(web.control_path)]
    replay = subprocess.run(
        [*base, "http://sengu/v1/events?since=0&follow=false"],
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=True,
    ).stdout
    frames = [dict(_fields(frame)) for frame in replay.strip().split("\n\n")]
    assert [int(frame["id"]) for frame in frames] == list(range(1, len(frames) + 1))
    schema = answer_schema("GET", "/v1/events", 200)
    for frame in frames:
        record = json.loads(frame["data"])
        assert problems(record, schema) == []
        assert (str(record["id"]), record["type"]) == (frame["id"], frame["event"])
    last = frames[-1]["id"]
    with subprocess.Popen(
        [*base, f"http://sengu/v1/events?since={last}"], stdout=subprocess.PIPE, text=True
    ) as follower:
        assert follower.stdout is not None
        web.signal(signal.SIGHUP)
        assert follower.stdout.readline() == f"id: {int(last) + 1}\n"
        assert follower.stdout.readline() == "event: deploy_requested\n"
        web.wait_event(concluded(2))
        assert web.stop() == 0
        assert "all workers are gone" in follower.stdout.read()
        assert follower.wait(WAIT_SECONDS) in (0, 18)  # 18: cut off, as the page says it ends


def _fields(frame: str) -> list[tuple[str, str]]:
    return [(name, text) for name, _, text in (line.partition(": ") for line in frame.split("\n"))]


def test_the_socket_is_for_its_own_user_and_root_only(
    sengu: Sengu, witnesses: Witnesses, free_path: Path
) -> None:
    needs_root()
    directory = free_path / "open"
    directory.mkdir(mode=0o755)
    free_path.chmod(0o755)
    instance = sengu.start(*NOTIFY, "--", *witnesses.command()).wait_ready()
    assert stat.S_IMODE(instance.control_path.stat().st_mode) == 0o600
    # Its directory keeps others out, and so does its mode: here neither does, but the uid.
    instance.directory.chmod(0o755)
    instance.control_path.chmod(0o666)
    url = ("--unix-socket", str(instance.control_path), "http://sengu/v1/status")
    with socket.socket(socket.AF_UNIX) as client:
        os.seteuid(65534)
        try:
            client.connect(str(instance.control_path))
        finally:
            os.seteuid(0)
        assert client.recv(1) == b""
    assert instance.status()["state"] == "serving"
    instance.control_path.chmod(0o600)
    as_nobody = (requires("setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups")
    refused = subprocess.run(
        [*as_nobody, requires("curl"), "-s", *url], capture_output=True, check=False
    )
    assert refused.returncode == 7  # no connection at all


def test_two_instances_cannot_have_one_name_or_socket(sengu: Sengu, web: Instance) -> None:
    args = ("--control", str(web.control_path), "--", "sleep", "600")
    second = sengu.run("start", "--name", "second", *args)
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert "is running already" in second.stderr
    assert web.status()["name"] == web.name


def test_ls_names_the_instances_and_forgets_those_that_end(
    sengu: Sengu, witnesses: Witnesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"ls-{os.getpid()}"
    place = Path("/run/sengu" if os.geteuid() == 0 else f"/tmp/sengu-{os.geteuid()}")
    place.mkdir(mode=0o700, exist_ok=True)
    monkeypatch.setattr(
        "tests.support.Instance.control_path", place / f"{name}.sock", raising=False
    )
    args = (*NOTIFY, "--control", str(place / f"{name}.sock"), "--", *witnesses.command())
    instance = sengu.start(*args, name=name).wait_ready()
    listed = json.loads(sengu.run("ls", "--json").stdout)
    (mine,) = [one for one in listed if one["name"] == name]
    assert (mine["state"], mine["pid"], mine["workers_ready"]) == ("serving", instance.pid, 1)
    assert re.search(rf"^{name} +serving +1 +1/1 +{instance.pid} ", sengu.run("ls").stdout, re.M)
    for spelling in ((name,), ("--name", name)):
        assert json.loads(sengu.run("status", *spelling, "--json").stdout)["name"] == name
    second = sengu.run("start", "--name", name, "--", "sleep", "600")
    assert second.returncode == 2
    assert f"an instance named {name!r} is running already" in second.stderr
    assert sengu.run("stop", name).returncode == 0
    assert instance.wait() == 0
    assert name not in sengu.run("ls").stdout
    gone = sengu.run("status", name)
    assert gone.returncode == 3
    assert f"there is no instance {name!r}" in gone.stderr


def test_verbs_and_their_exit_codes(web: Instance, free_path: Path) -> None:
    status = web.cli("status")
    assert status.returncode == 0
    assert f"{web.name}: serving generation 1, 2 workers wanted" in status.stdout
    as_json = web.cli("status", "--json")
    assert problems(json.loads(as_json.stdout), answer_schema("GET", "/v1/status", 200)) == []
    reloaded = web.cli("reload")
    assert (reloaded.returncode, reloaded.stdout[:19]) == (0, "generation 2 serves")
    assert web.cli("scale", "3").returncode == 0
    assert web.cli("scale", "-1").stdout.strip() == f"{web.name} has 2 workers, it had 3"
    assert web.cli("reload", "--no-wait").stdout == "generation 3 is being deployed\n"
    web.wait_event(concluded(3))
    (free_path / "broken").touch()
    broken = web.cli("reload")
    assert broken.returncode == 1
    assert "the deploy of generation 4 was aborted: exit status 3" in broken.stderr
    assert broken.stderr.endswith("what it wrote last:\n  | boom\n")
    (free_path / "broken").unlink()
    assert web.cli("stop").returncode == 0
    assert web.wait() == 0
    for verb in (("status",), ("reload",), ("scale", "1"), ("stop",), ("events",)):
        gone = web.cli(*verb)
        assert (gone.returncode, gone.stdout) == (3, "")
        assert gone.stderr.startswith("sengu: error: no instance listens on")


def test_reload_says_when_it_was_superseded_or_timed_out(
    reluctant: Instance, free_path: Path
) -> None:
    (free_path / "slow").touch()
    late = reluctant.cli("reload", "--timeout", "0.1")
    assert late.returncode == 5
    assert "timed out after 0.1 s; the deploy of generation 2 goes on" in late.stderr
    assert reluctant.status()["state"] == "deploying"
    reluctant.wait_for_line("^slow$")
    so_far = len(reluctant.lines)
    with ReloadInBackground(reluctant) as first:
        reluctant.wait_for_line("^slow$", after=so_far)
        (free_path / "slow").unlink()
        assert reluctant.cli("reload").returncode == 0
        assert first.process.wait(WAIT_SECONDS) == 4
    assert reluctant.status()["generation"] == 4


class ReloadInBackground:
    """`sengu reload` of an instance, running beside the test."""

    def __init__(self, instance: Instance) -> None:
        self.process = subprocess.Popen(
            [*PROGRAM, "reload", "--control", str(instance.control_path)],
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> "ReloadInBackground":
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.kill()
        self.process.wait()


def test_events_can_be_followed_by_people_and_programs(web: Instance) -> None:
    shown = web.cli("events").stdout.splitlines()
    assert re.match(r" +1  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d  deploy of generation 1", shown[0])
    last = kept_events(web)[-1]["id"]
    assert web.cli("events", "--since", str(last)).stdout == ""
    with subprocess.Popen(
        [
            *(*PROGRAM, "events", "--follow", "--json", "--since", str(last)),
            *("--control", str(web.control_path)),
        ],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as follower:
        assert follower.stdout is not None
        assert follower.stderr is not None
        web.signal(signal.SIGTTIN)
        assert json.loads(follower.stdout.readline())["type"] == "scale_adjusted"
        assert web.stop() == 0
        kinds = [json.loads(line)["type"] for line in follower.stdout]
        assert kinds[-1] == "service_stopped"
        assert follower.wait(WAIT_SECONDS) == 0
        assert follower.stderr.read() == "sengu: the instance is gone\n"


def test_a_removed_control_socket_is_bound_anew_by_the_next_deploy(web: Instance) -> None:
    web.control_path.unlink()
    assert web.cli("status").returncode == 3
    web.signal(signal.SIGHUP)
    web.wait_for_line("was removed; it was bound anew")
    assert web.wait_event(concluded(2))["outcome"] == "succeeded"


def test_bash_completes_verbs_options_and_values(sengu: Sengu, free_path: Path) -> None:
    script = sengu.run("completion", "bash")
    assert (script.returncode, script.stderr) == (0, "")
    (free_path / "completion").write_text(script.stdout)
    program = shutil.which("sengu", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert program is not None
    for words, expected in {
        "sengu re": {"reload"},
        "sengu start --kill": {"--kill-old-delay"},
        "sengu start --strategy ''": {"surge", "rolling"},
        "sengu completion f": {"fish"},
    }.items():
        ask = (
            f"source {free_path}/completion; COMP_WORDS=({words});"
            " COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ));"
            ' _sengu_completion sengu; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            ["bash", "-c", ask],
            env=environment({"PATH": f"{Path(program).parent}:{os.environ['PATH']}"}),
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert set(done.stdout.split()) == expected
