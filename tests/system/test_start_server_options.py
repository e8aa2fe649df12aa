"""Each option of start_server, under `sengu start`: listeners, workers, signals, deploys.

Those about files are in test_start_server_files.py; both are compared with the real start_server
in test_against_start_server.py.
"""

import os
import signal
import socket
import stat
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.support import Sengu, requires
from tests.system.peers import Witnesses, concluded, deploy, kept_events, kill

NOTIFY = ("--ready", "notify")


def test_a_port_is_bound_as_each_of_its_forms_says(sengu: Sengu, witnesses: Witnesses) -> None:
    ports = [free_port() for _ in range(8)]
    forms = {
        f"{ports[0]}": ("AF_INET", "SOCK_STREAM", "0.0.0.0", f"{ports[0]}"),
        f"127.0.0.1:{ports[1]}": ("AF_INET", "SOCK_STREAM", "127.0.0.1", f"127.0.0.1:{ports[1]}"),
        f"localhost:{ports[2]}": ("AF_INET", "SOCK_STREAM", "127.0.0.1", f"localhost:{ports[2]}"),
        f"[::1]:{ports[3]}": ("AF_INET6", "SOCK_STREAM", "::1", f"[::1]:{ports[3]}"),
        f"u{ports[4]}": ("AF_INET", "SOCK_DGRAM", "0.0.0.0", f"{ports[4]}"),
        f"127.0.0.1:u{ports[5]}": ("AF_INET", "SOCK_DGRAM", "127.0.0.1", f"127.0.0.1:{ports[5]}"),
        f"[::1]:u{ports[6]}": ("AF_INET6", "SOCK_DGRAM", "::1", f"[::1]:{ports[6]}"),
        f" {ports[7]} ": ("AF_INET", "SOCK_STREAM", "0.0.0.0", f"{ports[7]}"),
    }
    options = [word for form in forms for word in ("--port", form)]
    instance = sengu.start(*NOTIFY, *options, "--", *witnesses.command()).wait_ready()
    found = witnesses.wait()
    told = dict(pair.rsplit("=", 1) for pair in found["env"]["SERVER_STARTER_PORT"].split(";"))
    assert [int(fd) for fd in told.values()] == list(range(3, 11))
    for port, (form, (family, kind, host, key)) in zip(ports, forms.items(), strict=True):
        seen = found["sockets"][told[key]]
        assert (seen["family"], seen["type"]) == (family, kind), form
        assert seen["address"][:2] == [host, port], form
        assert seen["listens"] == (kind == "SOCK_STREAM"), form
    assert instance.stop() == 0


def test_options_may_be_written_with_an_equals_sign(
    sengu: Sengu, witnesses: Witnesses, port: int, free_path: Path
) -> None:
    path = free_path / "app.sock"
    options = (f"--port=127.0.0.1:{port}", f"--path={path}", "--interval=0.1", f"--dir={free_path}")
    sengu.start(*options, *witnesses.command())
    found = witnesses.wait()
    assert found["env"]["SERVER_STARTER_PORT"] == f"127.0.0.1:{port}=3;{path}=4"
    assert found["cwd"] == str(free_path)


def test_options_after_the_command_are_the_commands_own(sengu: Sengu, witnesses: Witnesses) -> None:
    instance = sengu.start(*NOTIFY, *witnesses.command("--port", "no port", "talk"))
    instance.wait_ready()
    instance.wait_for_line("started on stdout")


def test_a_port_with_a_descriptor_is_found_there(
    sengu: Sengu, witnesses: Witnesses, port: int
) -> None:
    other = free_port()
    forms = ("--port", f"{port}=9", "--port", f"127.0.0.1:{other}=4")
    sengu.start(*NOTIFY, *forms, "--", *witnesses.command()).wait_ready()
    found = witnesses.wait()
    assert found["env"]["SERVER_STARTER_PORT"] == f"{port}=9;127.0.0.1:{other}=4"
    assert found["fds"]["9"] == found["fds"]["3"]
    assert found["sockets"]["9"]["address"] == ["0.0.0.0", port]
    assert found["sockets"]["4"]["address"] == ["127.0.0.1", other]


def test_port_0_lets_the_kernel_choose_and_status_tells_which(
    sengu: Sengu, witnesses: Witnesses
) -> None:
    options = ("--port", "127.0.0.1:0", "--port", "127.0.0.1:0")
    instance = sengu.start(*NOTIFY, *options, "--", *witnesses.command()).wait_ready()
    sockets = witnesses.wait()["sockets"].values()
    bound = [f"127.0.0.1:{one['address'][1]}" for one in sockets]
    assert [one["address"] for one in instance.status()["listeners"]] == bound
    assert len(set(bound)) == 2


def test_a_udp_port_takes_datagrams(sengu: Sengu, port: int) -> None:
    echo = (
        "import os, socket; s = socket.socket(fileno=3); data, peer = s.recvfrom(99); "
        "s.sendto(data.upper(), peer); s.recv(1)"
    )
    sengu.start("--interval", "0.1", "--port", f"127.0.0.1:u{port}", "--", "python3", "-c", echo)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(20)
        sengu.instances[0].wait_ready()
        client.sendto(b"hello", ("127.0.0.1", port))
        assert client.recv(99) == b"HELLO"


def test_a_path_is_a_socket_file_of_any_mode_and_goes_with_the_instance(
    sengu: Sengu, witnesses: Witnesses, free_path: Path
) -> None:
    instances = []
    for mode, option in ((0o777, ()), (0o660, ("--path-mode", "660"))):
        path = free_path / f"{mode:o}.sock"
        args = (*NOTIFY, "--path", str(path), *option)
        instances.append(sengu.start(*args, "--", *witnesses.command()).wait_ready())
        found = path.stat()
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == mode
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert [instance.stop() for instance in instances] == [0, 0]
    assert not list(free_path.glob("*.sock"))


def test_a_stale_socket_file_is_replaced_and_a_live_one_is_not(
    sengu: Sengu, witnesses: Witnesses, free_path: Path
) -> None:
    path = free_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as first:
        first.bind(str(path))
        first.listen()
        refused = sengu.run("start", "--path", str(path), "--control", f"{free_path}/c", "true")
        assert refused.returncode == 2
        assert f"somebody is listening on {path} already" in refused.stderr
        first.settimeout(0)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    sengu.start(*NOTIFY, "--path", str(path), "--", *witnesses.command()).wait_ready()
    assert witnesses.wait()["sockets"]["3"]["address"] == str(path)


def test_a_file_that_is_no_socket_is_not_replaced(sengu: Sengu, free_path: Path) -> None:
    path = free_path / "precious"
    path.write_text("data")
    refused = sengu.run("start", "--path", str(path), "--control", f"{free_path}/c", "true")
    assert refused.returncode == 2
    assert "is not a socket" in refused.stderr
    assert path.read_text() == "data"


def test_a_socket_file_that_somebody_else_has_put_there_is_left(
    sengu: Sengu, witnesses: Witnesses, free_path: Path
) -> None:
    path = free_path / "app.sock"
    instance = sengu.start(*NOTIFY, "--path", str(path), "--", *witnesses.command()).wait_ready()
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        assert instance.stop() == 0
        assert path.exists()


def test_dir_is_where_workers_run_and_where_their_program_is(sengu: Sengu, free_path: Path) -> None:
    (free_path / "inner").mkdir()
    program = free_path / "inner" / "program"
    program.write_text("#!/bin/sh\npwd; exec sleep 600\n")
    program.chmod(0o755)
    args = ("--interval", "0.1", "--dir", "inner", "--", "./program")
    instance = sengu.start(*args, cwd=free_path).wait_ready()
    instance.wait_for_line(f"^{free_path}/inner$")


def test_the_backlog_is_the_one_asked_for(sengu: Sengu, witnesses: Witnesses, port: int) -> None:
    args = (*NOTIFY, "--port", f"127.0.0.1:{port}", "--backlog", "17")
    sengu.start(*args, "--", *witnesses.command()).wait_ready()
    ss = requires("ss")
    shown = subprocess.run(
        [ss, "-Hltn", f"sport = :{port}"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.split()[2] == "17"  # Send-Q of a listener is its backlog


def test_a_worker_is_ready_when_it_has_lived_for_the_interval(sengu: Sengu) -> None:
    instance = sengu.start("--interval", "0.4", "--", "sleep", "600").wait_ready()
    started = instance.wait_event(lambda event: event["type"] == "worker_started")
    ready = instance.wait_event(lambda event: event["type"] == "worker_ready")
    assert ready["time"] - started["time"] >= 0.39  # by a clock that may be set
    assert "alive after 0.4 s" in ready["text"]


def test_a_worker_that_dies_within_the_interval_has_failed(sengu: Sengu, free_path: Path) -> None:
    switch = free_path / "broken"
    script = f"test ! -e {switch} || {{ echo boom >&2; exit 3; }}; exec sleep 600"
    args = ("--interval", "5", "--attempts", "1", "--", "sh", "-c", script)
    instance = sengu.start(*args).wait_ready()
    (old,) = instance.status()["workers"]
    switch.touch()
    outcome = instance.control("POST", "/v1/reload", {"wait": True})
    assert outcome.status == 409
    assert outcome.body["outcome"] == "aborted"
    assert "exit status 3" in outcome.body["reason"]
    assert outcome.body["last_words"] == "boom"
    assert [worker["pid"] for worker in instance.status()["workers"]] == [old["pid"]]


@pytest.mark.parametrize("spelling", ["QUIT", "SIGQUIT", "quit", "3"])
def test_signal_on_hup_stops_the_old_worker_and_signal_on_term_the_last(
    sengu: Sengu, witnesses: Witnesses, spelling: str
) -> None:
    signals = ("--signal-on-hup", spelling, "--signal-on-term", "USR2")
    instance = sengu.start(*NOTIFY, *signals, "--", *witnesses.command()).wait_ready()
    old = witnesses.wait()["pid"]
    deploy(instance)
    new = witnesses.wait()["pid"]
    witnesses.wait("QUIT", pid=old)
    assert instance.stop() == 0
    witnesses.wait("USR2", pid=new)
    assert witnesses.unread() == []


def test_the_old_worker_is_stopped_when_the_new_one_is_ready_and_not_before(
    sengu: Sengu, witnesses: Witnesses
) -> None:
    instance = sengu.start("--interval", "0.3", "--", *witnesses.command()).wait_ready()
    deploy(instance)
    events = [
        (event["type"], event.get("worker"))
        for event in kept_events(instance)
        if event["type"] in ("worker_ready", "worker_stopping")
    ]
    assert events[:3] == [("worker_ready", 1), ("worker_ready", 2), ("worker_stopping", 1)]


def test_a_generation_that_drains_does_not_keep_the_next_from_coming(
    sengu: Sengu, witnesses: Witnesses
) -> None:
    instance = sengu.start(*NOTIFY, "--grace", "60", "--", *witnesses.command("hold")).wait_ready()
    deploy(instance)
    deploy(instance)
    pids = [report["pid"] for report in witnesses.wait_for(3)]
    states = [(worker["pid"], worker["state"]) for worker in instance.status()["workers"]]
    assert states == [(pids[0], "stopping"), (pids[1], "stopping"), (pids[2], "ready")]
    for pid in pids[:2]:
        kill(pid)
    instance.wait_event(
        lambda event: event["type"] == "generation_retired" and event["generation"] == 2
    )
    instance.signal(signal.SIGQUIT)  # none of these witnesses obeys TERM
    assert instance.wait() == 0


@pytest.mark.parametrize("by", ["option", "variable"])
def test_the_old_workers_stay_for_the_kill_old_delay(
    sengu: Sengu, witnesses: Witnesses, by: str
) -> None:
    options = ("--kill-old-delay", "0.4") if by == "option" else ()
    env = {} if by == "option" else {"KILL_OLD_DELAY": "0.4"}
    instance = sengu.start(*NOTIFY, *options, "--", *witnesses.command(), env=env).wait_ready()
    deploy(instance)
    stopping = instance.wait_event(lambda event: event["type"] == "worker_stopping")
    decided = instance.wait_event(concluded(2))
    assert stopping["time"] - decided["time"] >= 0.39


@pytest.mark.parametrize("by", ["option", "variable"])
def test_generations_follow_by_themselves_with_auto_restart(
    sengu: Sengu, witnesses: Witnesses, by: str
) -> None:
    settings = {"AUTO_RESTART_INTERVAL": "0.3", "KILL_OLD_DELAY": "0"}
    if by == "option":
        switch = ("--enable-auto-restart", "--auto-restart-interval", "0.3")
        instance = sengu.start(
            *NOTIFY, *switch, "--kill-old-delay", "0", "--", *witnesses.command()
        )
    else:
        env = {"ENABLE_AUTO_RESTART": "1", **settings}
        instance = sengu.start(*NOTIFY, "--", *witnesses.command(), env=env)
    moments = [instance.wait_ready().wait_event(concluded(n))["time"] for n in (1, 2, 3)]
    assert all(later - earlier >= 0.29 for earlier, later in pairwise(moments))
    env = witnesses.wait()["env"]
    assert env["ENABLE_AUTO_RESTART"] == "1"
    assert settings.items() <= env.items()


def test_the_envdir_is_read_anew_for_each_generation(
    sengu: Sengu, witnesses: Witnesses, free_path: Path
) -> None:
    envdir = free_path / "env"
    envdir.mkdir()
    (envdir / "COLOUR").write_text("red\nsecond line\n")
    (envdir / "TASTE").write_text("sweet")
    (envdir / "EMPTY").touch()
    (envdir / ".hidden").write_text("x")
    env = {"COLOUR": "blue", "EMPTY": "kept", "TASTE": "sour"}
    args = (*NOTIFY, "--envdir", str(envdir), "--", *witnesses.command())
    instance = sengu.start(*args, env=env).wait_ready()
    seen = witnesses.wait()["env"]
    assert (seen["COLOUR"], seen["TASTE"], seen["EMPTY"]) == ("red", "sweet", "kept")
    assert ".hidden" not in seen
    assert seen["ENVDIR"] == str(envdir)
    (envdir / "COLOUR").write_text("green")
    (envdir / "TASTE").unlink()
    deploy(instance)
    seen = witnesses.wait()["env"]
    assert (seen["COLOUR"], seen["TASTE"]) == ("green", "sour")


def test_a_replacement_after_a_crash_has_its_generations_environment(
    sengu: Sengu, witnesses: Witnesses, free_path: Path
) -> None:
    (free_path / "COLOUR").write_text("red")
    sengu.start(*NOTIFY, "--", *witnesses.command(), env={"ENVDIR": str(free_path)}).wait_ready()
    first = witnesses.wait()
    (free_path / "COLOUR").write_text("green")
    kill(first["pid"])
    second = witnesses.wait()
    assert first["env"]["COLOUR"] == second["env"]["COLOUR"] == "red"
    assert second["env"]["SERVER_STARTER_GENERATION"] == "1"


def test_kill_old_delay_in_the_envdir_beats_the_option_and_may_change(
    sengu: Sengu, witnesses: Witnesses, free_path: Path
) -> None:
    (free_path / "KILL_OLD_DELAY").write_text("0")
    args = ("--kill-old-delay", "600", "--envdir", str(free_path), "--", *witnesses.command())
    instance = sengu.start(*NOTIFY, *args).wait_ready()
    first = witnesses.wait()["pid"]
    deploy(instance)
    witnesses.wait("TERM", pid=first)
    (free_path / "KILL_OLD_DELAY").write_text("0.4")
    second = witnesses.wait()["pid"]
    deploy(instance)
    decided = instance.wait_event(concluded(3))
    stopping = instance.wait_event(
        lambda event: event["type"] == "worker_stopping", since=decided["id"]
    )
    witnesses.wait("TERM", pid=second)
    assert stopping["time"] - decided["time"] >= 0.39


def test_a_broken_envdir_stops_the_deploy_and_nothing_else(
    sengu: Sengu, witnesses: Witnesses, free_path: Path
) -> None:
    instance = sengu.start(
        *NOTIFY, "--envdir", str(free_path), "--", *witnesses.command()
    ).wait_ready()
    old = witnesses.wait()["pid"]
    (free_path / "KILL_OLD_DELAY").write_text("soon")
    reload = instance.cli("reload")
    assert reload.returncode == 1
    assert "KILL_OLD_DELAY 'soon' is not a duration" in reload.stderr
    assert [worker["pid"] for worker in instance.status()["workers"]] == [old]


def test_version_is_printed_and_nothing_else_is_done(sengu: Sengu) -> None:
    for args in (("--version",), ("start", "--version"), ("start", "--version", "--", "no-such")):
        told = sengu.run(*args)
        assert (told.returncode, told.stderr) == (0, "")
        assert told.stdout.split()[0] == "sengu"


def test_an_instance_without_listeners_replaces_its_program(
    sengu: Sengu, witnesses: Witnesses
) -> None:
    instance = sengu.start(*NOTIFY, "--", *witnesses.command()).wait_ready()
    seen = witnesses.wait()
    assert seen["env"]["SERVER_STARTER_PORT"] == ""
    assert not {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} & seen["env"].keys()
    deploy(instance)
    assert witnesses.wait()["env"]["SERVER_STARTER_GENERATION"] == "2"
    witnesses.wait("TERM", pid=seen["pid"])
    assert os.path.exists(f"/proc/{instance.pid}")
