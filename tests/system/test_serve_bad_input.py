"""What is wrong with a command line of `sengu serve` is told in one line; nothing is started."""

import socket
import subprocess
from pathlib import Path

import pytest

from tests.support import Sengu, requires
from tests.system.web import ENVIRONMENT, Site, serve


def refuse(sengu: Sengu, site: Site, *args: str) -> str:
    """The one line."""
    control = ("--control", str(site.directory / "control"))
    before = sorted(site.directory.rglob("*"))
    told = sengu.run("serve", *control, *args, cwd=site.directory, env=ENVIRONMENT)
    assert (told.returncode, told.stdout) == (2, ""), told
    assert told.stderr.startswith("sengu: error: "), told.stderr
    assert told.stderr.count("\n") == 1, told.stderr
    assert sorted(site.directory.rglob("*")) == before
    return told.stderr.removeprefix("sengu: error: ")


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        ((), "add it: sengu serve MODULE:NAME"),
        (("plain.py",), "write plain:app"),
        (("./plain.py:app",), "write plain:app"),
        (("plain",), "as in plain:app"),
        (("plain:create_app(1)",), "takes none"),
        (("plain:app", "--listen", "http"), "HOST:8000"),
        (("plain:app", "--interface", "fastcgi"), "wsgi"),
        (("plain:asgi", "--interface", "asgi", "--threads", "4"), "--workers"),
        (("plain:app", "--user", "nobdy"), "did you mean nobody?"),
        (("plain:app", "--max-rss", "much"), "10m"),
        (("plain:app", "--trusted-proxy", "10.0.0.1/8"), "did you mean 10.0.0.0/8?"),
        (("plain:app", "--hooks", "hooked.py"), "write the modules: hooked"),
        (("plain:app", "--tls-cert", "nowhere.pem"), "does not exist"),
        (("plain:app", "--tls-cert", "plain.py"), "cannot be used"),
        (("plain:app", "--tls-key", "plain.py"), "add --tls-cert"),
        (("plain:app", "--access-log", "nowhere/log"), "mkdir -p"),
        (("plain:app", "--reload", "--daemonize", "--log-file", "log"), "leave out --daemonize"),
        (("plain:app", "--max-request", "5"), "did you mean --max-requests"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_told_with_the_next_step(
    sengu: Sengu, site: Site, args: tuple[str, ...], hint: str
) -> None:
    if args and "--listen" not in args:
        args = (*args, "--listen", "unix:app.sock")
    assert hint in refuse(sengu, site, *args).replace("'", "")  # those of quotations


def test_a_port_that_is_taken_is_told(sengu: Sengu, site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        line = refuse(sengu, site, "plain:app", "--listen", f"127.0.0.1:{port}")
    assert line.startswith(f"cannot bind 127.0.0.1:{port}: address already in use; ")


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate and its key."""
    certificate, key = directory / "cert.pem", directory / "key.pem"
    openssl = (requires("openssl"), "req", "-x509", "-newkey", "ec", "-nodes")
    curve = ("-pkeyopt", "ec_paramgen_curve:prime256v1")
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    files = ("-keyout", str(key), "-out", str(certificate))
    subprocess.run([*openssl, *curve, *names, *files], check=True, capture_output=True)
    return certificate, key


def test_a_key_of_another_certificate_is_told(sengu: Sengu, site: Site, tmp_path: Path) -> None:
    certificate, _key = make_certificate(site.directory)
    _other, key = make_certificate(tmp_path)
    tls = ("--tls-cert", str(certificate), "--tls-key", str(key))
    assert "is not the key of" in refuse(sengu, site, "plain:app", *tls)


@pytest.mark.parametrize("target", ["plain:app", "plain:asgi"])
def test_a_good_certificate_is_served_and_renewed_by_a_deploy(
    sengu: Sengu, site: Site, port: int, target: str
) -> None:
    certificate, key = make_certificate(site.directory)
    tls = ("--tls-cert", str(certificate), "--tls-key", str(key), "--workers", "1")
    instance = serve(sengu, site, port, *tls, target=target)
    curl = (requires("curl"), "--silent", "--fail", "--cacert", str(certificate))
    where = ("--resolve", f"localhost:{port}:127.0.0.1", f"https://localhost:{port}/")
    for version in ("one", "two"):
        site.release(version)
        make_certificate(site.directory)
        assert instance.cli("reload", "--drained").returncode == 0
        done = subprocess.run([*curl, *where], capture_output=True, text=True, check=True)
        assert done.stdout.startswith(f"{version} ")
