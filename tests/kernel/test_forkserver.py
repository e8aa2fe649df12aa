"""The fork server: loads once, forks workers that are ours, and never leaves us guessing."""

import os
import re
import select
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sengu.model.application import Privileges
from sengu.wire import forkserver as wire
from sengu.worker.identity import Identity
from tests.kernel.nursery import (
    PATIENCE_SECONDS,
    Nursery,
    exited,
    read_all,
    read_line,
    reap,
    status_of,
)
from tests.support import needs_root


@pytest.fixture
def notify() -> Iterator[socket.socket]:
    """A notify socket in the abstract namespace; its address is `@` and the rest of its name."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0sengu-test/{os.getpid()}/{os.urandom(8).hex()}")
        sock.settimeout(20)
        yield sock


def address(notify: socket.socket) -> str:
    name = notify.getsockname()
    assert isinstance(name, bytes)
    return "@" + name[1:].decode()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def title_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()


def wait_at_rest(pid: int) -> None:
    """Until the worker is idle, and each of its threads asleep, in several looks."""
    until = time.monotonic() + PATIENCE_SECONDS
    looks = 0
    while looks < 5:
        assert time.monotonic() < until, "it does not come to rest"
        states = [
            (task / "stat").read_text().rpartition(")")[2].split()[0]
            for task in Path(f"/proc/{pid}/task").iterdir()
        ]
        looks = looks + 1 if title_of(pid).endswith(": idle") and set(states) == {"S"} else 0
        select.select([], [], [], 0.02)


# --- loading ---


def test_an_application_is_loaded_and_said_to_be(free_path: Path) -> None:
    with Nursery(free_path) as nursery:
        assert nursery.load() == wire.Loaded()
        assert title_of(nursery.process.pid) == "sengu: fake fork server gen 1: fake:app"


def test_an_application_that_fails_is_told_with_its_traceback_and_ends_it(free_path: Path) -> None:
    load = {"load": "raise LoadError('no such thing', 'Traceback: because')"}
    with Nursery(free_path, options=load) as nursery:
        assert nursery.load() == wire.LoadFailed("no such thing", "Traceback: because")
        assert nursery.process.wait(20) == 1
        assert "Traceback: because" in nursery.stderr.read_text()


@pytest.mark.parametrize("code", ["sys.exit(3)", "1/0", "raise BaseException(4)"])
def test_whatever_an_application_raises_is_told(free_path: Path, code: str) -> None:
    with Nursery(free_path, options={"load": code}) as nursery:
        report = nursery.load()
        assert isinstance(report, wire.LoadFailed)
        assert "fake_engine.py" in report.details
        assert nursery.process.wait(20) == 1


def test_a_traceback_of_any_length_fits(free_path: Path) -> None:
    load = {"load": "raise LoadError('x' * 9_999_999, '\\u20ac' * 9_999_999 + 'end')"}
    with Nursery(free_path, options=load) as nursery:
        report = nursery.load()
        assert isinstance(report, wire.LoadFailed)
        assert report.details.endswith("end")


def test_what_only_root_may_read_is_opened_before_root_is_given_up(free_path: Path) -> None:
    needs_root()
    free_path.chmod(0o755)
    (free_path / "key").write_text("secret")
    (free_path / "key").chmod(0o600)
    (free_path / "keyed_engine.py").write_text(
        "import fake_engine\n"
        "class Prepared(fake_engine.Prepared):\n"
        "    def __init__(self, application):\n"
        "        super().__init__(application)\n"
        "        self.options['run'] = f\"print('{open('key').read()}', file=sys.stderr)\"\n"
        "prepare = Prepared\n"
    )
    nobody = Privileges(uid=65534, gid=65534, user="nobody")
    with Nursery(free_path, engine="keyed_engine", privileges=nobody) as nursery:
        assert nursery.load() == wire.Loaded()
        baby = nursery.fork()
        read_line(baby.stderr)
        assert read_line(baby.stderr) == "secret"


def test_whoever_a_fork_server_has_become_it_ends_with_the_server(
    free_path: Path,
) -> None:
    needs_root()
    free_path.chmod(0o755)
    nobody = Privileges(uid=65534, gid=65534, user="nobody")
    look = "import ctypes; n = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(n))\n"
    options = {"load": look + "print('ends by', n.value, file=sys.stderr)"}
    with Nursery(free_path, options=options, privileges=nobody) as nursery:
        assert nursery.load() == wire.Loaded()
        assert f"ends by {signal.SIGKILL:d}" in nursery.stderr.read_text()


def test_an_engine_that_is_not_there_is_told(free_path: Path) -> None:
    with Nursery(free_path, engine="not_there") as nursery:
        report = nursery.load()
        assert isinstance(report, wire.LoadFailed)
        assert "not_there" in report.problem


def test_hooks_that_can_not_be_imported_are_told(free_path: Path) -> None:
    with Nursery(free_path, hooks="not_there") as nursery:
        report = nursery.load()
        assert isinstance(report, wire.LoadFailed)
        assert report.problem.startswith("cannot import --hooks not_there: ModuleNotFoundError")


def test_a_thread_that_no_fork_would_have_is_warned_of(free_path: Path) -> None:
    load = {"load": "threading.Thread(target=time.sleep, args=(9,), name='poller', daemon=True)"}
    load["load"] += ".start()"
    with Nursery(free_path, options=load) as nursery:
        report = nursery.load()
        assert isinstance(report, wire.Loaded)
        (warning,) = report.warnings
        assert "'poller'" in warning
        assert "fake:app" in warning


def test_a_server_of_another_version_is_refused(free_path: Path) -> None:
    with Nursery(free_path) as nursery:
        order = wire.Load(nursery.application, "fake", 1, version=99)
        nursery.socket.sendmsg(
            [wire.encode(order)],
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, nursery.memory_fd.to_bytes(4, "little"))],
        )
        report = nursery.report()
        assert isinstance(report, wire.LoadFailed)
        assert "version 99" in report.problem


# --- births ---


def test_a_worker_is_our_child_in_a_session_of_its_own(free_path: Path) -> None:
    with Nursery(free_path) as nursery:
        nursery.load()
        baby = nursery.fork(slot=7)
        assert read_line(baby.stderr) == "born 7 0"
        nursery.fork()  # by then the process in between has gone
        assert parent_of(baby.pid) == os.getpid()  # the nearest subreaper's
        assert os.getsid(baby.pid) == baby.pid
        assert os.getpgid(baby.pid) == baby.pid


def test_many_are_born_at_once_each_with_its_own_output(free_path: Path) -> None:
    with Nursery(free_path) as nursery:
        nursery.load()
        pipes = [nursery.order(slot) for slot in range(20)]
        pids = set()
        for number, _ in enumerate(pipes, 1):
            birth = nursery.birth()
            assert birth.key == f"worker/{number}"
            pids.add(birth.pid)
        assert len(pids) == 20
        assert [read_line(pipe) for pipe in pipes] == [f"born {slot} 0" for slot in range(20)]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            reap(pid)
        for pipe in pipes:  # nobody else holds the other end
            assert read_all(pipe) == ""
            os.close(pipe)


def test_a_worker_says_that_it_is_ready(free_path: Path, notify: socket.socket) -> None:
    with Nursery(free_path) as nursery:
        nursery.load()
        nursery.fork(notify=address(notify))
        assert notify.recv(100) == b"READY=1"


def test_a_worker_has_what_its_contract_names_and_nothing_else(free_path: Path) -> None:
    with Nursery(free_path, listeners=2) as nursery:
        nursery.load()
        baby = nursery.fork()
        assert read_line(baby.stderr) == "born 0 2"
        found = {
            int(fd): os.readlink(f"/proc/{baby.pid}/fd/{fd}")
            for fd in os.listdir(f"/proc/{baby.pid}/fd")
        }
        kinds = sorted(target.partition(":")[0] for fd, target in found.items() if fd > 2)
        # Two listeners, the lifeline; the scoreboard, mapped and for what is written behind it; an
        # eventfd, a pipe and the memory for its stacks, for itself.
        own = ["anon_inode", "pipe", "pipe", "/memfd"]
        assert kinds == sorted(["/memfd", "/memfd", "pipe", "socket", "socket", *own])


def test_a_worker_knows_who_it_is(free_path: Path) -> None:
    names = ("SENGU_SLOT", "LISTEN_PID", "LISTEN_FDS", "NOTIFY_SOCKET")
    run = f"print(*(os.environ.get(name) for name in {names!r}), os.getpid(), file=sys.stderr)"
    with Nursery(free_path, listeners=1, options={"run": run}) as nursery:
        nursery.load()
        baby = nursery.fork(slot=4, notify="@nobody")
        read_line(baby.stderr)
        assert read_line(baby.stderr) == f"4 {baby.pid} 1 @nobody {baby.pid}"


def test_without_preload_each_worker_loads_for_itself(free_path: Path) -> None:
    load = {"load": "print('loaded by', os.getpid(), file=sys.stderr)"}
    with Nursery(free_path, preload=False, options=load) as nursery:
        assert nursery.load() == wire.Loaded()
        for _ in range(2):
            baby = nursery.fork()
            assert read_line(baby.stderr) == f"loaded by {baby.pid}"


def test_without_preload_a_failure_is_the_workers(free_path: Path) -> None:
    load = {"load": "raise LoadError('no such thing', 'Traceback: because\\n')"}
    with Nursery(free_path, preload=False, options=load) as nursery:
        nursery.load()
        baby = nursery.fork()
        assert status_of(baby) == 1
        assert read_all(baby.stderr).endswith("Traceback: because\nsengu: error: no such thing\n")


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [("1/0", 1, "ZeroDivisionError"), ("sys.exit(7)", 7, ""), ("sys.exit('why')", 1, "why\n")],
)
def test_what_ends_a_worker_is_its_exit_status(
    free_path: Path, code: str, status: int, said: str
) -> None:
    with Nursery(free_path, options={"run": code}) as nursery:
        nursery.load()
        baby = nursery.fork()
        assert status_of(baby) == status
        assert said in read_all(baby.stderr)


def test_an_exit_function_of_the_application_runs_in_the_worker(free_path: Path) -> None:
    load = {"load": "import atexit; atexit.register(print, 'goodbye', file=sys.stderr)"}
    with Nursery(free_path, options={**load, "run": "sys.exit()"}) as nursery:
        nursery.load()
        baby = nursery.fork()
        assert status_of(baby) == 0
        assert "goodbye" in read_all(baby.stderr)


@pytest.mark.parametrize(("number", "how"), [(signal.SIGTERM, "RETIRE"), (signal.SIGQUIT, "STOP")])
def test_a_worker_hears_how_it_is_to_stop(
    free_path: Path, notify: socket.socket, number: int, how: str
) -> None:
    with Nursery(free_path) as nursery:
        nursery.load()
        baby = nursery.fork(notify=address(notify))
        notify.recv(100)
        os.kill(baby.pid, number)
        assert status_of(baby) == 0
        assert f"stopping {how}" in read_all(baby.stderr)


def test_a_worker_that_is_told_at_its_birth_hears_it(free_path: Path) -> None:
    with Nursery(free_path) as nursery:
        nursery.load()
        baby = nursery.fork()
        os.kill(baby.pid, signal.SIGUSR1)
        os.kill(baby.pid, signal.SIGTERM)
        assert status_of(baby) == 0
        assert "stopping RETIRE" in read_all(baby.stderr)


def test_who_can_not_be_told_of_does_not_live(free_path: Path) -> None:
    with Nursery(free_path) as nursery:
        nursery.load()
        nursery.births.close()
        stderr = nursery.order()
        assert nursery.report() == wire.ForkFailed(1, "cannot fork: Broken pipe")
        while read_line(stderr):
            pass  # until all who could write have gone
        os.close(stderr)
        nursery.reap_stranger()


def test_a_worker_that_was_asked_for_twice_is_born_once(free_path: Path) -> None:
    """The second asks again who could not know whether the first had."""
    with Nursery(free_path) as nursery:
        nursery.load()
        baby = nursery.fork()
        again = nursery.order(worker=1)
        assert read_all(again) == "", "nobody has its other end"
        os.close(again)
        assert nursery.fork().pid != baby.pid
        nursery.process.send_signal(signal.SIGSTOP)  # so that they are one batch
        pipes = [nursery.order(worker=number) for number in (4, 4, 5)]
        nursery.process.send_signal(signal.SIGCONT)
        births = [nursery.birth(), nursery.birth()]
        assert [birth.key for birth in births] == ["worker/4", "worker/5"]
        assert read_all(pipes[1]) == ""
        for birth in births:
            os.kill(birth.pid, signal.SIGKILL)
            reap(birth.pid)
        for pipe in pipes:
            os.close(pipe)


def test_a_fork_server_lives_on_when_a_worker_could_not_be_told_of(free_path: Path) -> None:
    with Nursery(free_path) as nursery:
        nursery.load()
        nursery.births.shutdown(socket.SHUT_RD)
        for number in (1, 2):
            os.close(nursery.order())
            assert nursery.report() == wire.ForkFailed(number, "cannot fork: Broken pipe")
            nursery.reap_stranger()


def test_a_worker_has_neither_of_its_fork_servers_sockets(free_path: Path) -> None:
    with Nursery(free_path) as nursery:
        nursery.load()
        baby = nursery.fork()
        read_line(baby.stderr)
        nursery.process.kill()
        nursery.process.wait()
        assert nursery.births.recv(1) == b""
        assert nursery.socket.recv(1) == b""


def test_a_thread_that_does_not_end_does_not_keep_the_fork_server(free_path: Path) -> None:
    load = {"load": "threading.Thread(target=time.sleep, args=(60,)).start()"}
    with Nursery(free_path, options=load) as nursery:
        nursery.load()
        nursery.socket.shutdown(socket.SHUT_RDWR)
        assert nursery.process.wait(20) == 0


def test_a_child_of_a_worker_ends_by_term_as_any_other(free_path: Path) -> None:
    run = """
child = os.fork()
if child == 0:
    os.write(2, b"child\\n")
    time.sleep(60)
    os._exit(0)
os.write(2, f"{child}\\n".encode())
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=sys.stderr, flush=True)
"""
    with Nursery(free_path, options={"run": run}) as nursery:
        nursery.load()
        baby = nursery.fork()
        read_line(baby.stderr)
        lines = {read_line(baby.stderr), read_line(baby.stderr)}
        (child,) = lines - {"child"}
        os.kill(int(child), signal.SIGTERM)
        assert read_line(baby.stderr) == str(-signal.SIGTERM)


def test_an_aborted_worker_tells_where_it_was(free_path: Path, notify: socket.socket) -> None:
    with Nursery(free_path) as nursery:
        nursery.load()
        baby = nursery.fork(notify=address(notify))
        notify.recv(100)
        # The stack of a thread that runs meanwhile can not be told (faulthandler).
        wait_at_rest(baby.pid)
        os.kill(baby.pid, signal.SIGABRT)
        assert status_of(baby) == -signal.SIGABRT
        assert "fake_engine.py" in read_all(baby.stderr)


# --- who dies ---


def test_workers_outlive_their_fork_server(free_path: Path, notify: socket.socket) -> None:
    with Nursery(free_path) as nursery:
        nursery.load()
        baby = nursery.fork(notify=address(notify))
        notify.recv(100)
        nursery.process.kill()
        nursery.process.wait()
        assert nursery.socket.recv(1) == b""
        os.kill(baby.pid, signal.SIGTERM)
        assert status_of(baby) == 0


def test_a_fork_server_ends_when_the_server_is_gone(free_path: Path) -> None:
    with Nursery(free_path) as nursery:
        nursery.load()
        nursery.socket.shutdown(socket.SHUT_RDWR)
        assert nursery.process.wait(20) == 0


def test_a_worker_ends_when_its_lifeline_is_cut(free_path: Path, notify: socket.socket) -> None:
    with Nursery(free_path) as nursery:
        nursery.load()
        baby = nursery.fork(notify=address(notify))
        notify.recv(100)
        nursery.cut_lifeline()
        assert status_of(baby) == 0


def test_a_worker_that_does_not_come_back_ends_when_nobody_is_left_to_end_it(
    free_path: Path,
) -> None:
    options = {"run": "print('deaf', file=sys.stderr); time.sleep(60)"}
    with Nursery(free_path, options=options, grace_seconds=0.2) as nursery:
        nursery.load()
        baby = nursery.fork()
        read_line(baby.stderr)
        assert read_line(baby.stderr) == "deaf"
        nursery.cut_lifeline()
        assert status_of(baby) == 1
        assert "fake_engine.py" in read_all(baby.stderr)


# --- hooks ---

HOOKS = """
def before_fork(worker): told("before_fork", worker)
def after_fork(worker): told("after_fork", worker)
def worker_ready(worker): told("worker_ready", worker)
def worker_exit(worker): told("worker_exit", worker)
def told(name, worker):
    import os, sys
    who = "me" if worker.pid == os.getpid() else worker.pid
    print(name, worker.service, worker.generation, worker.slot, who, file=sys.stderr, flush=True)
"""


def test_hooks_are_told_of_a_workers_life(free_path: Path, notify: socket.socket) -> None:
    (free_path / "my_hooks.py").write_text(HOOKS)
    with Nursery(free_path, hooks="my_hooks") as nursery:
        nursery.load()
        baby = nursery.fork(slot=3, notify=address(notify))
        notify.recv(100)
        os.kill(baby.pid, signal.SIGTERM)
        assert status_of(baby) == 0
        assert read_all(baby.stderr).splitlines() == [
            "after_fork fake 1 3 me",
            "born 3 0",
            "worker_ready fake 1 3 me",
            "stopping RETIRE",
            "worker_exit fake 1 3 me",
        ]
        assert nursery.stderr.read_text() == "before_fork fake 1 3 0\n"


def test_a_hook_that_fails_before_a_fork_is_told_and_costs_no_other_worker(
    free_path: Path,
) -> None:
    (free_path / "my_hooks.py").write_text("def before_fork(worker): 1 / worker.slot\n")
    with Nursery(free_path, hooks="my_hooks") as nursery:
        nursery.load()
        stderr = nursery.order(slot=0)
        report = nursery.report()
        assert report == wire.ForkFailed(
            1, "the hook before_fork failed: ZeroDivisionError: division by zero"
        )
        assert "my_hooks.py" in read_all(stderr)
        os.close(stderr)
        assert read_line(nursery.fork(slot=1).stderr) == "born 1 0"


def test_who_is_born_beside_one_that_was_refused_does_not_have_its_output(free_path: Path) -> None:
    (free_path / "my_hooks.py").write_text("def before_fork(worker): 1 / worker.slot\n")
    with Nursery(free_path, hooks="my_hooks") as nursery:
        nursery.load()
        nursery.process.send_signal(signal.SIGSTOP)  # so that both are one batch
        refused, born = nursery.order(slot=0), nursery.order(slot=1)
        nursery.process.send_signal(signal.SIGCONT)
        birth = nursery.birth()
        assert birth.key == "worker/2"
        assert "ZeroDivisionError" in read_all(refused)
        os.kill(birth.pid, signal.SIGKILL)
        reap(birth.pid)
        for fd in (refused, born):
            os.close(fd)


def test_a_hook_that_fails_before_a_worker_is_ready_ends_it(free_path: Path) -> None:
    (free_path / "my_hooks.py").write_text("def after_fork(worker): 1/0\n")
    with Nursery(free_path, hooks="my_hooks") as nursery:
        nursery.load()
        baby = nursery.fork()
        assert status_of(baby) == 1
        assert "ZeroDivisionError" in read_all(baby.stderr)


def test_a_request_without_progress_is_told_to_its_hook(free_path: Path) -> None:
    hook = "def request_timeout(worker, request): os.write(2, f'stuck in {request}\\n'.encode())"
    (free_path / "my_hooks.py").write_text(f"import os\n{hook}\n")
    head = b"GET /slow?secret HTTP/1.1\r\n"
    run = f"runtime.board.lanes[0].begin(time.monotonic(), {head!r}); runtime.rouse()"
    options = {"run": f"{run}; time.sleep(60)"}
    with Nursery(
        free_path, options=options, hooks="my_hooks", request_timeout_seconds=0.1
    ) as nursery:
        nursery.load()
        baby = nursery.fork()
        read_line(baby.stderr)
        assert read_line(baby.stderr) == "stuck in GET /slow"
        title = title_of(baby.pid)
        assert re.fullmatch(r"sengu: fake worker 0 gen 1: GET /slow \d+\.\ds", title), title


# --- privileges ---


def test_fork_server_and_workers_become_the_user_that_is_asked_for(free_path: Path) -> None:
    needs_root()
    free_path.chmod(0o755)
    run = "print(os.getresuid(), os.getresgid(), os.getgroups(), os.umask(0), file=sys.stderr)"
    privileges = Privileges(uid=65534, gid=65533, groups=(65532,), umask=0o027, user="nobody")
    with Nursery(free_path, options={"run": run}, privileges=privileges) as nursery:
        assert nursery.load() == wire.Loaded()
        baby = nursery.fork()
        read_line(baby.stderr)
        ids = f"{(65534,) * 3} {(65533,) * 3} [65532] {0o027}"
        assert read_line(baby.stderr) == ids
        assert os.stat(f"/proc/{nursery.process.pid}").st_uid in (0, 65534)


def test_an_idle_worker_does_not_wake_up(free_path: Path, notify: socket.socket) -> None:
    with Nursery(free_path) as nursery:
        nursery.load()
        baby = nursery.fork(notify=address(notify))
        notify.recv(100)

        def switches() -> int:
            total = 0
            for task in os.listdir(f"/proc/{baby.pid}/task"):
                text = Path(f"/proc/{baby.pid}/task/{task}/status").read_text()
                lines = [x for x in text.splitlines() if "voluntary_ctxt_switches" in x]
                total += sum(int(line.split()[1]) for line in lines)
            return total

        def is_asleep() -> bool:
            before = switches()
            assert not exited(baby, 2.5)
            return switches() == before

        assert any(is_asleep() for _ in range(4)), "it does not come to rest"


def test_the_first_request_after_a_rest_is_seen(free_path: Path, notify: socket.socket) -> None:
    """Whoever begins it rouses the ticker."""
    hook = "def request_timeout(worker, request): os.write(2, f'stuck in {request}\\n'.encode())"
    (free_path / "my_hooks.py").write_text(f"import os\n{hook}\n")
    run = """
def begin(*_):
    while not runtime.dozing:
        time.sleep(0.01)
    runtime.board.lanes[0].begin(time.monotonic(), b"GET /slow HTTP/1.1")
    runtime.rouse()
import signal
signal.signal(signal.SIGUSR2, begin)
"""
    with Nursery(
        free_path, options={"run": run}, hooks="my_hooks", request_timeout_seconds=0.5
    ) as nursery:
        nursery.load()
        baby = nursery.fork(notify=address(notify))
        notify.recv(100)
        os.kill(baby.pid, signal.SIGUSR2)
        read_line(baby.stderr)
        assert read_line(baby.stderr) == "stuck in GET /slow"


def test_an_identity_is_plain_data() -> None:
    assert Identity("web", 1, 2).pid == 0
