"""nginx with the file of examples/deploy, before servers that are deployed: it sees no deploy.

With its fallback (`proxy_next_upstream`) and without, so that what goes wrong behind is seen.
"""

import http.client
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.support import WAIT_SECONDS, Instance, Sengu, requires
from tests.system.puppets import wait_until, workers
from tests.system.test_docs_deploy import DEPLOY, WEB, answers
from tests.system.test_serve_under_load import deploy_during
from tests.system.web import ENVIRONMENT, Client, fetch

FALLBACK = "proxy_next_upstream error;"
NO_FALLBACK = "proxy_next_upstream off;"

NGINX = """
daemon off; worker_processes 2; pid {directory}/nginx.pid; error_log {directory}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    include {directory}/web.conf;
}}
"""


@contextmanager
def nginx_before(directory: Path, backend: str, fallback: str = FALLBACK) -> Iterator[int]:
    """nginx with the example's file; the port that it listens on."""
    port = free_port()
    text = (DEPLOY / "nginx.conf").read_text()
    for theirs, ours, times in (
        ("listen 80;", f"listen 127.0.0.1:{port};", 1),
        ("server 127.0.0.1:8000 ", f"server {backend} ", 2),
        (FALLBACK, fallback, 1),
    ):
        assert text.count(theirs) == times
        text = text.replace(theirs, ours)
    (directory / "web.conf").write_text(text)
    (directory / "nginx.conf").write_text(NGINX.format(directory=directory))
    directory.chmod(0o755)  # its workers are nobody
    command = [requires("nginx"), "-p", str(directory), "-c", "nginx.conf", "-e", "stderr"]
    with subprocess.Popen(command) as process:
        try:
            wait_until(lambda: answers(port), "nginx")
            yield port
        finally:
            process.terminate()
            process.wait(WAIT_SECONDS)


class Visitors:
    """Clients of nginx that GET and POST in turn, while the block lasts."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._is_over = threading.Event()
        self.outcomes: Counter[str] = Counter()
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]

    def __enter__(self) -> "Visitors":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        client = Client(self._port)
        while not self._is_over.is_set():
            for body in (None, b"x" * 1000):
                try:
                    outcome = str(client.fetch("/", body).status)
                except (OSError, http.client.HTTPException) as problem:
                    outcome = repr(problem)
                self.outcomes[outcome] += 1
        client.close()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_nginx_in_front_answers_all_whatever_is_deployed_behind_it(
    sengu: Sengu, free_path: Path, port: int, kind: str
) -> None:
    path = f"unix:{free_path}/web.sock"
    listen, proxy = (f"127.0.0.1:{port}", "127.0.0.1") if kind == "tcp" else (path, "unix")
    options = ("--listen", listen, "--trusted-proxy", proxy, "--workers", "2")
    instance = sengu.serve("hello:app", *options, cwd=WEB, env=ENVIRONMENT).wait_ready()
    with nginx_before(free_path, listen) as front:
        assert fetch(front).text.endswith(" to 127.0.0.1 by http\n")
        with Visitors(front, 12) as visitors:
            for generation in range(2, 6):
                done = instance.cli("reload")
                assert done.returncode == 0, done.stderr
                before = visitors.outcomes.total()
                wait_until(lambda before=before: visitors.outcomes.total() > before + 100)  # type: ignore[misc]
                assert instance.status()["generation"] == generation
        wait_until(lambda: sum(w["connections"] or 0 for w in workers(instance)), "keep-alive")
    assert set(visitors.outcomes) == {"200"}
    assert instance.stop() == 0


def wrk_sees_no_deploy(instance: Instance, front: int, directory: Path) -> None:
    """Whatever goes wrong behind nginx is in its log too, which is empty."""
    wrk = ("wrk", "-t1", "-c50", "-d4s", f"http://127.0.0.1:{front}/")
    said = deploy_during(instance, *wrk)
    assert "errors" not in said, said
    assert "Non-2xx" not in said, said
    log = directory / "error.log"
    assert not log.exists() or log.read_text() == ""


@pytest.mark.parametrize("fallback", [FALLBACK, NO_FALLBACK], ids=["fallback", "none"])
@pytest.mark.parametrize("options", [(), ("--reuseport",)], ids=["shared", "reuseport"])
def test_wrk_through_nginx_sees_no_deploy_of_an_application(
    sengu: Sengu, free_path: Path, port: int, options: tuple[str, ...], fallback: str
) -> None:
    listen = f"127.0.0.1:{port}"
    options = ("--listen", listen, "--trusted-proxy", "127.0.0.1", "--workers", "3", *options)
    instance = sengu.serve("hello:app", *options, cwd=WEB, env=ENVIRONMENT).wait_ready()
    with nginx_before(free_path, listen, fallback) as front:
        wrk_sees_no_deploy(instance, front, free_path)
    assert instance.stop() == 0


SHOP = """
import os
def app(environ, start_response):
    body = os.environ["SENGU_GENERATION"].encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.mark.parametrize("fallback", [FALLBACK, NO_FALLBACK], ids=["fallback", "none"])
def test_wrk_through_nginx_sees_no_deploy_of_a_server_that_binds_by_itself(
    sengu: Sengu, free_path: Path, port: int, fallback: str
) -> None:
    (free_path / "shop.py").write_text(SHOP)
    listen = f"127.0.0.1:{port}"
    gunicorn = (sys.executable, "-B", "-m", "gunicorn", "--reuse-port", "--workers", "3")
    quiet = ("--no-control-socket", "--log-level", "warning")
    instance = sengu.start(
        *("--self-bound", listen, "--", *gunicorn, *quiet, "--bind", listen, "shop:app"),
        env={"HOME": str(free_path)},
        cwd=free_path,
    ).wait_ready()
    with nginx_before(free_path, listen, fallback) as front:
        wrk_sees_no_deploy(instance, front, free_path)
    assert instance.stop() == 0
