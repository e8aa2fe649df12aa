"""`sengu.run`: scripts that run their own worker classes; and `embedded`, for debuggers."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import become_subreaper, descendants, kill_descendants
from tests.support import WAIT_SECONDS, Output, environment, run_cli
from tests.system.jobs import Jobs
from tests.system.puppets import is_alive, wait_until

SCRIPT = """
import sys

def load():
    return {"n": 42}

class Shared(sengu.Server):
    def before_run(self):
        self.text = "shared"

class Consumer(sengu.Worker):
    def run(self):
        self.log.info("awesome work", extra={"n": self.config.get("n"), "server": self.server})
        self.stopping.wait()
        self.log.info("stopped")

    def reload(self):
        self.log.info("now %s", self.config["n"])

class Coroutine(sengu.Worker):
    async def run(self):
        self.log.info("awesome coroutine")
        await self.stopping.async_wait()

class Failing(sengu.Worker):
    def run(self):
        raise RuntimeError("boom")

def make():
    class Nested(sengu.Worker):
        pass
    return Nested

if __name__ == "__main__":
    print("main", flush=True)
    exec(sys.argv[1])
"""


class Scripts:
    """Runs the script, each time with another last line."""

    def __init__(self, directory: Path) -> None:
        become_subreaper()
        self.jobs = Jobs(directory)
        self.jobs.write(SCRIPT)
        self.control = directory / "control"
        self._known = descendants()
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, line: str, *arguments: str) -> tuple[subprocess.Popen[str], Output]:
        process = subprocess.Popen(
            [sys.executable, *arguments, "jobs.py", line],
            cwd=self.jobs.directory,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._processes.append(process)
        assert process.stdout is not None
        return process, Output(process.stdout)

    def run(self, line: str) -> tuple[int, str]:
        """To its end: exit code and output."""
        process, output = self.start(line)
        code = process.wait(WAIT_SECONDS)
        output.join(WAIT_SECONDS)
        return code, str(output)

    def settings(self, **settings: object) -> str:
        given = {"name": self.jobs.directory.name, "control": str(self.control), **settings}
        return ", ".join(f"{name}={value!r}" for name, value in given.items())

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
            process.wait(WAIT_SECONDS)
        kill_descendants(self._known)


@pytest.fixture
def scripts(free_path: Path) -> Iterator[Scripts]:
    scripts = Scripts(free_path)
    yield scripts
    scripts.close()


def line_after(output: Output, pattern: str, after: int = 0) -> re.Match[str]:
    return output.wait_for_line(pattern, WAIT_SECONDS, after)


def test_a_script_becomes_the_main_process_and_its_classes_are_found(scripts: Scripts) -> None:
    process, output = scripts.start(
        f"sengu.run(Consumer, server=Shared, config=load, {scripts.settings(workers=2)})"
    )
    for slot in (0, 1):
        line_after(output, rf"\[1/{slot} \d+\] awesome work n=42 server=<.*Shared object")
    line_after(output, rf"pid {process.pid}, control")
    process.terminate()
    assert process.wait(WAIT_SECONDS) == 0
    output.join(WAIT_SECONDS)
    assert output.lines.count("main") == 1


@pytest.mark.parametrize("kind", ["process", "embedded"])
def test_a_script_may_be_run_as_a_module(scripts: Scripts, kind: str) -> None:
    command = f"sengu.run(Consumer, server=Shared, {scripts.settings(kind=kind)})"
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs", command],
        cwd=scripts.jobs.directory,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    output = Output(process.stdout)
    module = "jobs" if kind == "process" else "__main__"
    line_after(output, rf"awesome work n=None server=<{module}.Shared object")
    process.terminate()
    assert process.wait(WAIT_SECONDS) == 0
    output.join(WAIT_SECONDS)


def test_a_class_of_a_module_beside_the_script_is_found_from_anywhere(scripts: Scripts) -> None:
    scripts.jobs.write(
        """
        class Elsewhere(sengu.Worker):
            def run(self):
                self.log.info("found %s", __name__)
                self.stopping.wait()
        """,
        "elsewhere.py",
    )
    settings = scripts.settings(dir="/")
    process, output = scripts.start(f"import elsewhere; sengu.run(elsewhere.Elsewhere, {settings})")
    line_after(output, "found elsewhere")
    process.terminate()
    assert process.wait(WAIT_SECONDS) == 0


def test_in_the_background_log_and_pid_file_are_the_scripts(scripts: Scripts) -> None:
    log, pid_file = scripts.jobs.directory / "server.log", scripts.jobs.directory / "server.pid"
    settings = scripts.settings(daemonize=True, log=str(log), pid_file=pid_file.name)
    code, output = scripts.run(f"sengu.run(Consumer, config={{'n': 1}}, {settings})")
    assert code == 0, output
    pid = int(pid_file.read_text())
    wait_until(lambda: "awesome work n=1" in log.read_text(), "its first line")
    assert is_alive(pid)
    stopped = run_cli(("stop", "--control", str(scripts.control)), environment())
    assert stopped.returncode == 0, stopped.stderr
    assert "stopped" in log.read_text()


def test_what_fails_before_the_background_reaches_the_terminal(scripts: Scripts) -> None:
    log = str(scripts.jobs.directory / "server.log")
    settings = scripts.settings(daemonize=True, log=log, interval=0)
    code, output = scripts.run(f"sengu.run('jobs.py:Nobody', {settings})")
    assert code == 1
    assert "jobs.py has no Nobody; check the name" in output


@pytest.mark.parametrize(
    ("line", "code", "problem"),
    [
        (
            "sengu.run(make())",
            2,
            "the worker class is make.<locals>.Nested, which no other process can import; define",
        ),
        (
            "sengu.run(Consumer, config=lambda: {})",
            2,
            "config is <lambda>, which no other process can import; define it with a name",
        ),
        (
            "sengu.run(Consumer, server=type('Consumer', (), {}))",
            2,
            "server Consumer is not what __main__.Consumer is now",
        ),
        (
            "sengu.run(Consumer, config={'a': [1, {'b': print}]})",
            2,
            "config: a[1].b is a builtin_function_or_method, which cannot be handed",
        ),
        (
            "sengu.run(Consumer, config={'a': 'x' * 40_000})",
            2,
            "config is 40008 bytes of JSON, and 32768 is the most for a mapping; give a function",
        ),
        ("sengu.run(Consumer, workers='many')", 2, "--workers 'many' is not a whole number"),
        ("sengu.run(Consumer, workers=True)", 2, "workers=True is no value for it; give a number"),
        ("sengu.run(Consumer, daemonize=3.5)", 2, "daemonize=3.5 is no value for it; give True"),
        ("sengu.run(Consumer, config='nowhere.toml')", 2, "there is no such file"),
        (
            "sengu.run(Consumer, pidfile='x')",
            1,
            "TypeError: sengu.run() has no setting 'pidfile'; did you mean 'pid_file'?",
        ),
        (
            "sengu.run(Consumer, log='x', log_file='y')",
            1,
            "TypeError: sengu.run() takes 'log' or 'log_file', not both",
        ),
        (
            "sengu.run(Consumer, kind='embedded', daemonize=True)",
            2,
            "kind embedded runs in the foreground process; leave out daemonize",
        ),
        ("sengu.run(Consumer, zzz=1)", 1, "has no setting 'zzz'; see sengu work --help"),
    ],
)
def test_a_mistake_is_told_with_the_way_out(
    scripts: Scripts, line: str, code: int, problem: str
) -> None:
    found, output = scripts.run(line)
    assert problem in output
    assert found == code


def test_a_class_that_was_typed_in_is_refused(scripts: Scripts) -> None:
    source = "import sengu\nclass A(sengu.Worker): pass\nsengu.run(A)"
    result = subprocess.run(
        [sys.executable, "-c", source],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 2
    assert "was typed in, and no other process can import it; use a file" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_embedded_worker_runs_in_this_process_and_stops_by_signals(
    scripts: Scripts, number: signal.Signals
) -> None:
    process, output = scripts.start(
        f"sengu.run(Consumer, server=Shared, config=load, {scripts.settings(kind='embedded')})"
    )
    line_after(output, rf"\[1/0 {process.pid}\] awesome work n=42 server=<__main__.Shared object")
    assert not descendants() - {process.pid}
    process.send_signal(number)
    assert process.wait(WAIT_SECONDS) == 0
    output.join(WAIT_SECONDS)
    assert output.lines[-1].endswith("stopped")


def test_an_embedded_coroutine_runs_too(scripts: Scripts) -> None:
    process, output = scripts.start("sengu.run(Coroutine, kind='embedded')")
    line_after(output, "awesome coroutine")
    process.send_signal(signal.SIGINT)
    assert process.wait(WAIT_SECONDS) == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2])
def test_an_embedded_worker_reads_its_configuration_again(
    scripts: Scripts, number: signal.Signals
) -> None:
    config = scripts.jobs.directory / "jobs.toml"
    config.write_text("n = 1")
    process, output = scripts.start("sengu.run(Consumer, config='jobs.toml', kind='embedded')")
    line_after(output, "awesome work n=1")
    config.write_text("n =")
    process.send_signal(number)
    line_after(output, "sengu: error: the configuration .*jobs.toml is wrong")
    config.write_text("n = 2")
    process.send_signal(number)
    line_after(output, "now 2")


def test_what_an_embedded_worker_raises_is_the_scripts(scripts: Scripts) -> None:
    code, output = scripts.run(
        "try:\n    sengu.run(Failing, kind='embedded')\nexcept RuntimeError as e: print('got', e)"
    )
    assert code == 0
    assert output.endswith("got boom")


def test_the_verb_has_embedded_workers_too(scripts: Scripts) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "sengu", "work", "jobs.py:Consumer", "--kind", "embedded"],
        cwd=scripts.jobs.directory,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    output = Output(process.stderr)
    line_after(output, rf"\[1/0 {process.pid}\] awesome work")
    process.send_signal(signal.SIGINT)
    assert process.wait(WAIT_SECONDS) == 0
    output.join(WAIT_SECONDS)


def test_a_debugger_has_the_terminal_of_an_embedded_worker(scripts: Scripts) -> None:
    scripts.jobs.write(
        """
        class Debugged(sengu.Worker):
            def run(self):
                secret = 40 + 2
                breakpoint()
                self.log.info("went on")
        """
    )
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "sengu", "work", "jobs.py:Debugged", "--kind", "embedded"],
        cwd=scripts.jobs.directory,
        env=environment(),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    read_until(main, b"(Pdb)")
    os.write(main, b"p secret\n")
    assert b"42" in read_until(main, b"(Pdb)")
    os.write(main, b"c\n")
    read_until(main, b"went on")
    assert process.wait(WAIT_SECONDS) == 0
    os.close(main)


def read_until(fd: int, end: bytes) -> bytes:
    data = b""
    while end not in data:
        assert select.select([fd], [], [], WAIT_SECONDS)[0], data
        data += os.read(fd, 4096)
    return data
