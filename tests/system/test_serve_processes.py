"""What the processes of an application are like from outside: titles, hooks, rights, memory."""

import grp
import json
import os
import pwd
import re
import signal
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import Instance, Sengu, needs_root
from tests.system.puppets import (
    children,
    descriptors,
    is_alive,
    last_event,
    of_type,
    pids,
    wait_until,
    workers,
)
from tests.system.web import (
    ENVIRONMENT,
    Client,
    Site,
    ask,
    environment_of,
    fetch,
    fork_server,
    serve,
    status_of,
    title,
)

THREAD_AT_IMPORT = """
import threading
threading.Thread(target=threading.Event().wait, name="metrics", daemon=True).start()
TEXT = "one"
"""


def only_worker(instance: Instance) -> int:
    (worker,) = pids(instance)
    return worker


def test_titles_say_what_each_process_does(sengu: Sengu, site: Site, port: int) -> None:
    instance = serve(sengu, site, port, "--workers", "1")
    worker = only_worker(instance)
    name = f"sengu: {instance.name}"
    assert title(fork_server(instance)) == f"{name} fork server gen 1: plain:app"
    wait_until(lambda: title(worker) == f"{name} worker 0 gen 1: idle")
    gate = site.gate()
    with Client(port) as client:
        client.send(f"/wait?{gate.path}")
        gate.wait_for_somebody()
        pattern = re.escape(f"{name} worker 0 gen 1: GET /wait ") + r"\d+\.\ds"
        wait_until(lambda: re.fullmatch(pattern, title(worker)))
        gate.open()
        client.receive()
        wait_until(lambda: title(worker) == f"{name} worker 0 gen 1: idle")
        assert instance.cli("reload").returncode == 0
        wait_until(lambda: title(worker) == f"{name} worker 0 gen 1: draining")


def test_status_tells_of_requests_and_connections(sengu: Sengu, site: Site, port: int) -> None:
    instance = serve(sengu, site, port, "--workers", "1")
    gate = site.gate()
    with Client(port) as idle, Client(port) as client:
        idle.ask()
        client.ask()
        wait_until(lambda: workers(instance)[0]["busy"] == 0)  # it is told after the answer
        told = json.loads(instance.cli("status", "--json").stdout)["workers"][0]
        assert (told["requests"], told["busy"], told["doing"]) == (2, 0, "")
        client.send(f"/wait?{gate.path}")
        gate.wait_for_somebody()
        told = json.loads(instance.cli("status", "--json").stdout)["workers"][0]
        assert (told["requests"], told["busy"], told["connections"]) == (3, 1, 2)
        assert re.fullmatch(r"GET /wait for \d+\.\d s", told["doing"])
        assert re.search(r" 3 +1 +2 +GET /wait for ", instance.cli("status").stdout)
        gate.open()
        client.receive()
    wait_until(lambda: workers(instance)[0]["connections"] == 0)


@pytest.mark.parametrize(
    "where",
    [("hooked:app",), ("plain:app", "--hooks", "hooked")],
    ids=["in the application's module", "in a module of their own"],
)
def test_each_hook_is_called_once_in_its_process(
    sengu: Sengu, site: Site, port: int, where: tuple[str, ...]
) -> None:
    target, *options = where
    instance = serve(sengu, site, port, "--workers", "2", *options, target=target)
    forker = fork_server(instance)
    slots = {w["slot"]: w["pid"] for w in workers(instance)}
    assert instance.stop() == 0
    instance.output.join(20)
    told = sorted(line for line in instance.lines if line.startswith("hook "))
    expected = []
    for slot, pid in slots.items():
        who = f"{instance.name} worker {slot} gen 1"
        expected.append(f"hook before_fork of {who} pid 0 in {forker}")
        for hook in ("after_fork", "worker_ready", "worker_exit"):
            expected.append(f"hook {hook} of {who} pid {pid} in {pid}")
    assert told == sorted(expected)


def test_a_hook_that_fails_before_a_worker_is_ready_fails_the_deploy(
    sengu: Sengu, site: Site, port: int
) -> None:
    instance = serve(sengu, site, port, "--workers", "1", "--attempts", "1", "--hooks", "hooked")
    for hook in ("before_fork", "after_fork", "worker_ready"):
        site.write("hooked.py", f"def {hook}(worker):\n    raise RuntimeError('from {hook}')")
        done = instance.cli("reload")
        assert done.returncode == 1
        assert f"RuntimeError: from {hook}" in done.stderr
        assert ask(port).generation == 1


def test_a_module_of_hooks_that_is_not_there_is_told(sengu: Sengu, site: Site, port: int) -> None:
    options = ("--listen", f"127.0.0.1:{port}", "--hooks", "hoked")
    instance = sengu.serve("plain:app", *options, cwd=site.directory, env=ENVIRONMENT)
    assert instance.wait() == 1
    instance.output.join(20)
    assert "cannot import --hooks hoked: ModuleNotFoundError" in instance.lines[-1]


@pytest.fixture
def nobody(site: Site) -> pwd.struct_passwd:
    """A user to whom the site belongs, and nothing else."""
    needs_root()
    account = pwd.getpwnam("nobody")
    for path in (site.directory, *site.directory.iterdir()):
        os.chown(path, account.pw_uid, account.pw_gid)
    return account


# The user may read what only root may, since the interpreter may be in root's own directory.
READING_ALL = (
    *("setpriv", "--bounding-set", "-dac_override"),
    *("--securebits", "+no_setuid_fixup"),
)


def ids_of(pid: int) -> tuple[str, str, str, str]:
    status = status_of(pid)
    return status["Uid"], status["Gid"], status["Groups"], status["Umask"]


@pytest.mark.parametrize("preload", [(), ("--no-preload",)], ids=["preload", "no-preload"])
def test_workers_and_fork_server_are_another_user_and_the_server_stays_root(
    sengu: Sengu, site: Site, port: int, nobody: pwd.struct_passwd, preload: tuple[str, ...]
) -> None:
    server_before = ids_of(os.getpid())
    options = ("--user", "nobody", "--umask", "027", "--workers", "1", *preload)
    instance = serve(sengu, site, port, *options, prefix=READING_ALL)
    uid, gid = (" ".join([str(number)] * 4) for number in (nobody.pw_uid, nobody.pw_gid))
    groups = " ".join(map(str, sorted(os.getgrouplist("nobody", nobody.pw_gid))))
    for pid in (only_worker(instance), fork_server(instance)):
        found = tuple(" ".join(text.split()) for text in ids_of(pid))
        assert found == (uid, gid, groups, "0027")
    assert ids_of(instance.pid)[:3] == server_before[:3]
    gate = site.directory / "made"
    assert fetch(port, f"/make?{gate}").status == 200
    made = gate.stat()
    assert (made.st_uid, made.st_gid) == (nobody.pw_uid, nobody.pw_gid)
    assert stat.S_IMODE(made.st_mode) == 0o666 & ~0o027
    since = last_event(instance)
    for pid in (fork_server(instance), only_worker(instance)):
        os.kill(pid, signal.SIGKILL)
    instance.wait_event(of_type("worker_ready"), since=since)
    assert ids_of(only_worker(instance))[0].split() == uid.split()


def test_logs_in_a_directory_of_root_are_made_for_the_user(
    sengu: Sengu, site: Site, port: int, nobody: pwd.struct_passwd, tmp_path: Path
) -> None:
    access = tmp_path / "access.log"
    options = ("--user", "nobody", "--access-log", str(access), "--workers", "1")
    instance = serve(sengu, site, port, *options, prefix=READING_ALL)
    for _ in range(2):
        ask(port)
        wait_until(access.read_text)
        assert access.stat().st_uid == nobody.pw_uid
        access.rename(tmp_path / "access.log.1")
        instance.signal(signal.SIGUSR1)
        wait_until(access.exists)
        instance.status()  # answered after the workers were told


def test_a_group_is_taken_instead_of_the_users_own(
    sengu: Sengu, site: Site, port: int, nobody: pwd.struct_passwd
) -> None:
    group = grp.getgrnam("daemon")
    options = ("--user", "nobody", "--group", "daemon", "--workers", "1")
    instance = serve(sengu, site, port, *options, prefix=READING_ALL)
    assert status_of(only_worker(instance))["Gid"].split() == [str(group.gr_gid)] * 4
    assert status_of(only_worker(instance))["Uid"].split() == [str(nobody.pw_uid)] * 4


@pytest.mark.parametrize("target", ["plain:app", "plain:asgi"])
def test_a_worker_holds_what_its_contract_says_and_programs_that_it_runs_get_nothing_of_its_own(
    sengu: Sengu, site: Site, port: int, target: str
) -> None:
    instance = serve(sengu, site, port, "--workers", "2", target=target)
    lifeline = int(environment_of(fork_server(instance))["SENGU_LIFELINE_FD"])
    for pid in pids(instance):
        wait_until_in_its_cgroup(pid)
        found = held_by(pid)
        contract = [re.sub(r"\d+", "N", found.pop(fd)[0]) for fd in (0, 2, 3, lifeline)]
        assert contract == ["/dev/null", "pipe:[N]", "socket:[N]", "pipe:[N]"]
        del found[1]
        # The rest is its scoreboard, its poll and what wakes it: nothing that lives on elsewhere,
        # and no end of a pipe whose other end somebody else has.
        targets = [what for what, _flags in found.values()]
        for what, flags in found.values():
            is_a_pair = what.startswith("pipe:") and targets.count(what) == 2
            assert is_a_pair or re.match(
                "/memfd:sengu-(scoreboard|stacks)|anon_inode:|socket:", what
            ), what
            assert flags & os.O_CLOEXEC
        assert os.getsid(pid) == os.getpgid(pid) == pid
        wait_until_child_of(instance.pid, pid)


def held_by(pid: int) -> dict[int, tuple[str, int]]:
    """What its descriptors are, and their flags; not those that it just closes."""
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            info = Path(f"/proc/{pid}/fdinfo/{fd}").read_text()
            flags = int(re.findall(r"^flags:\s+([0-7]+)$", info, re.M)[0], 8)
            found[int(fd)] = os.readlink(f"/proc/{pid}/fd/{fd}"), flags
    return found


def wait_until_in_its_cgroup(pid: int) -> None:
    """It enters when it is ready, and closes what it needed for that."""
    wait_until(lambda: not any("cgroup" in target for target in descriptors(pid)))


def wait_until_child_of(parent: int, pid: int) -> None:
    """Whoever was in between may outlive the news of the birth, and even the worker's readiness."""
    wait_until(lambda: status_of(pid)["PPid"] == str(parent), f"{pid} is a child of {parent}")


def test_a_worker_has_the_environment_of_the_contract(
    sengu: Sengu, site: Site, port: int, free_path: Path
) -> None:
    site.write(
        "version.py",
        "import json, os\n"
        "TEXT = 'one'\n"
        "def after_fork(worker):\n"
        f"    name = '{free_path}/environment.%d' % os.getpid()\n"
        "    open(name, 'w').write(json.dumps(dict(os.environ)))\n",
    )
    instance = serve(sengu, site, port, "--workers", "2", "--hooks", "version")
    notify = set()
    for worker in workers(instance):
        pid = worker["pid"]
        found = json.loads((free_path / f"environment.{pid}").read_text())
        assert found["LISTEN_FDS"] == "1"
        assert found["LISTEN_PID"] == str(pid)
        assert found["SERVER_STARTER_PORT"] == f"127.0.0.1:{port}=3"
        assert found["SENGU_SERVICE"] == instance.name
        assert found["SENGU_SLOT"] == str(worker["slot"])
        assert found["SENGU_GENERATION"] == found["SERVER_STARTER_GENERATION"] == "1"
        assert os.readlink(f"/proc/{pid}/fd/{found['SENGU_LIFELINE_FD']}").startswith("pipe:")
        notify.add(found["NOTIFY_SOCKET"])
    assert len(notify) == 2


def test_a_thread_that_the_import_has_started_is_named_in_a_warning(
    sengu: Sengu, site: Site, port: int
) -> None:
    site.write("version.py", THREAD_AT_IMPORT)
    instance = serve(sengu, site, port, "--workers", "1")
    line = instance.wait_for_line("the thread 'metrics'")
    assert "after_fork" in line.string
    assert "--no-preload" in line.string


def test_without_preload_a_thread_of_the_import_is_no_matter(
    sengu: Sengu, site: Site, port: int
) -> None:
    site.write("version.py", THREAD_AT_IMPORT)
    instance = serve(sengu, site, port, "--workers", "1", "--no-preload")
    ask(port)
    assert not [line for line in instance.lines if "metrics" in line]


def test_what_was_imported_is_frozen_and_shared(sengu: Sengu, site: Site, port: int) -> None:
    site.write("version.py", "TEXT = 'one'\nBALLAST = b'x' * (64 << 20)")
    instance = serve(sengu, site, port, "--workers", "2")
    assert int(fetch(port, "/frozen").text) > 1000
    for pid in pids(instance):
        smaps = Path(f"/proc/{pid}/smaps_rollup").read_text()
        rows = dict(re.findall(r"^(\w+):\s+(\d+) kB", smaps, re.M))
        assert int(rows["Rss"]) > 64 << 10
        assert int(rows["Pss"]) < 48 << 10  # a third of it each, with the fork server
        assert int(rows["Private_Dirty"]) + int(rows["Private_Clean"]) < 16 << 10


def test_after_a_stop_nothing_is_left(sengu: Sengu, site: Site, port: int) -> None:
    instance = serve(sengu, site, port, "--workers", "2")
    # Workers are ready before the process in between has ended, which makes them children.
    wait_until(lambda: len(children(instance.pid)) == 4, "its server, fork server and workers")
    everybody = children(instance.pid)
    assert environment_of(fork_server(instance))["SENGU_SERVICE"] == instance.name
    assert instance.stop() == 0
    assert not [pid for pid in everybody if is_alive(pid)]
    assert sorted(path.name for path in instance.directory.iterdir()) == ["notify.sock"]
