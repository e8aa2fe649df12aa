"""The harness itself, with a stand-in for the program: its waits end, its checks can fail."""

import sys
from pathlib import Path

import pytest

from tests import processes, support

# Obeys TERM, answers two paths, and with LEAK set leaves a process and its socket behind.
STAND_IN = """
import json, os, signal, socket, socketserver, subprocess, sys, threading
from http.server import BaseHTTPRequestHandler

name, path = sys.argv[3], sys.argv[5]

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        if self.path == "/v1/status":
            self.wfile.write(json.dumps({"name": name}).encode())
        else:
            for number in (1, 2):
                self.wfile.write(b'id: %d\\ndata: {"id": %d}\\n\\n' % (number, number))
                self.wfile.flush()
            finished.wait()
    def log_message(self, *args):
        pass

class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

def stop(*_):
    finished.set()
    threading.Thread(target=server.shutdown).start()

finished = threading.Event()
server = Server(path, Handler)
signal.signal(signal.SIGTERM, stop)
print("args", *sys.argv[6:], flush=True)
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.sendto(b"READY=1\\nSTATUS=fine", os.environ["NOTIFY_SOCKET"])
server.serve_forever()
if "LEAK" in os.environ:
    subprocess.Popen(["sleep", "60"], start_new_session=True)
else:
    os.unlink(path)
"""


@pytest.fixture(autouse=True)
def _stand_in(free_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = free_path / "stand_in.py"
    program.write_text(STAND_IN)
    monkeypatch.setattr(support, "PROGRAM", (sys.executable, str(program)))


def test_an_instance_is_started_asked_and_stopped(sengu: support.Sengu) -> None:
    instance = sengu.start("--workers", "3", name="shop").wait_ready()
    assert instance.wait_for_line(r"^args (.*)")[1] == "--workers 3"
    assert instance.status() == {"name": "shop"}
    assert instance.wait_event(lambda event: event["id"] == 2) == {"id": 2}
    assert instance.stop() == 0
    assert not instance.control_path.exists()


def test_waits_end_in_time_and_say_what_there_was(sengu: support.Sengu) -> None:
    instance = sengu.start("--workers", "3").wait_ready()
    instance.wait_for_line("args")
    with pytest.raises(pytest.fail.Exception, match="args --workers 3"):
        instance.wait_for_line("never", timeout=0.1)
    with pytest.raises(pytest.fail.Exception, match="'id': 2"):
        instance.wait_event(lambda event: False, timeout=3.0)
    with pytest.raises(pytest.fail.Exception, match=r"0\.1 s went by before STOPPING=1"):
        instance.wait_notified("STOPPING=1", timeout=0.1)
    instance.stop()
    with pytest.raises(pytest.fail.Exception, match="it exited before STOPPING=1"):
        instance.wait_notified("STOPPING=1")


def test_what_an_instance_leaves_behind_fails_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "SETTLE_SECONDS", 0.1)
    runner = support.Sengu()
    instance = runner.start(env={"LEAK": "1"}).wait_ready()
    with pytest.raises(pytest.fail.Exception, match=r"left its control socket; left running"):
        runner.close()
    assert not instance.directory.exists()


def test_a_missing_program_fails_in_ci_and_skips_on_a_desk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="not-there is not installed"):
        support.requires("not-there")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception):
        support.requires("not-there")
