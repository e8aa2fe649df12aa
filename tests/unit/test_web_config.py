"""What the command line of `sengu serve` becomes, and every mistake found before a start."""

import grp
import importlib.util
import os
import pwd
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sengu.config.boot import Boot, seal, unseal
from sengu.config.setting import parse_values
from sengu.config.settings.serve import SETTINGS
from sengu.config.web import assemble_web
from sengu.errors import UsageError
from sengu.model.address import InetAddress, UnixAddress
from sengu.model.application import Application, Privileges, Wear
from sengu.model.service import (
    BootPolicy,
    ReadyByNotify,
    Rolling,
    SignalProfile,
    StartPolicy,
    StopPolicy,
    Urge,
)
from sengu.model.web import AccessLog, Interface, Limits, Timeouts, Tls, WebOptions
from tests.support import requires

Options = Mapping[str, str | Sequence[str]]


def build(
    options: Options, target: str = "myapp:app", environ: Mapping[str, str] | None = None
) -> Boot:
    """Assemble, with options as in {"listen": ["80"], "workers": "4"}."""
    texts = {name: [given] if isinstance(given, str) else given for name, given in options.items()}
    found = {"XDG_RUNTIME_DIR": "/run/user/1"} | dict(environ or {})
    return assemble_web(parse_values(SETTINGS, texts), target, found).boot


def application_of(options: Options, target: str = "myapp:app") -> Application:
    application = build(options, target).service.application
    assert application is not None
    return application


def web_of(options: Options) -> WebOptions:
    return msgspec.json.decode(application_of(options).options, type=WebOptions)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with files and directories to be named."""
    place = tmp_path / "web"
    place.mkdir()
    (place / "file").write_text("no PEM\n")
    (place / "folder").mkdir()
    monkeypatch.chdir(place)
    return place


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with certificate, key, both in one file, another key, and a locked one."""
    place = tmp_path_factory.mktemp("pems")
    openssl = requires("openssl")
    new_key = f"{openssl} genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"
    for command in (
        f"{new_key} -out key.pem",
        f"{new_key} -out other.pem",
        f"{openssl} req -x509 -key key.pem -out cert.pem -subj /CN=localhost",
        f"{openssl} pkey -in key.pem -aes128 -passout pass:secret -out locked.pem",
    ):
        subprocess.run(command.split(), cwd=place, check=True, capture_output=True)
    both = (place / "cert.pem").read_text() + (place / "key.pem").read_text()
    (place / "both.pem").write_text(both)
    return place


def test_without_options_a_worker_for_each_core_serves_at_port_8000_of_this_machine() -> None:
    boot = build({})
    (listener,) = boot.sockets.listeners
    assert listener.address == InetAddress("127.0.0.1", 8000)
    service = boot.service
    assert service.command == ("myapp:app",)
    assert service.workers == len(os.sched_getaffinity(0))
    assert service.boot == BootPolicy(ReadyByNotify(), 60, 3)
    assert service.retire == StopPolicy(15, 30)
    assert service.stop == StopPolicy(3, 30)
    assert boot.signals is SignalProfile.DEFAULT
    assert boot.watched == ()


def test_without_options_the_application_has_what_the_models_say() -> None:
    assert web_of({}) == WebOptions("myapp:app")
    application = application_of({})
    assert application == Application(
        "sengu.http.engine",
        "myapp:app",
        options=application.options,
        request_timeout_seconds=30.0,
    )


def test_the_document_survives_its_memory_file() -> None:
    boot = build({"listen": ["8000", "unix:@x"], "threads": "4", "reload": "1"})
    assert unseal(seal(boot)) == boot


def test_what_is_said_about_requests_reaches_the_engine() -> None:
    assert web_of(
        {
            "interface": "wsgi",
            "threads": "8",
            "root-path": "/app/",
            "limit-request-line": "16k",
            "limit-request-fields": "50",
            "limit-request-field-size": "4096",
            "limit-body": "10m",
            "max-connections": "99",
            "header-timeout": "500ms",
            "body-timeout": "2m",
            "keep-alive": "0",
            "trusted-proxy": ["127.0.0.1", "fd00::/8", "unix"],
            "proxy-protocol": "1",
            "access-log": "-",
            "access-log-format": "json",
        }
    ) == WebOptions(
        target="myapp:app",
        interface=Interface.WSGI,
        threads=8,
        root_path="/app",
        limits=Limits(16 << 10, 50, 4096, 10 << 20, 99),
        timeouts=Timeouts(0.5, 120.0, 0.0),
        trusted_proxies=("127.0.0.1/32", "fd00::/8", "unix"),
        proxy_protocol=True,
        access_log=AccessLog("-", "json"),
    )


def test_what_is_said_about_workers_reaches_server_and_runtime() -> None:
    application = application_of(
        {
            "threads": "8",
            "no-preload": "1",
            "hooks": "myapp.hooks",
            "timeout": "5",
            "grace": "7",
            "max-requests": "1000",
            "max-rss": "1g",
            "max-age": "1h",
            "jitter": "20%",
            "umask": "027",
        }
    )
    assert application == Application(
        engine="sengu.http.engine",
        target="myapp:app",
        options=application.options,
        lanes=8,
        preload=False,
        hooks="myapp.hooks",
        privileges=Privileges(umask=0o027),
        request_timeout_seconds=5.0,
        grace_seconds=7.0,
        wear=Wear(1000, 1 << 30, 3600.0, 0.2),
    )


def test_no_timeout_is_none() -> None:
    assert application_of({"timeout": "0"}).request_timeout_seconds is None


def test_what_any_service_has_is_the_same_here(place: Path) -> None:
    boot = build(
        {
            "strategy": "rolling",
            "max-unavailable": "1",
            "grace": "9",
            "interval": "2",
            "ready-timeout": "5",
            "attempts": "1",
            "signals": "unicorn",
            "dir": "folder",
            "pid-file": "pid",
            "name": "n",
            "backlog": "7",
            "path-mode": "660",
            "stop-escalation": "INT:5",
            "start-delay": "1",
            "unrecoverable-exit-codes": "3",
        }
    )
    service = boot.service
    assert service.strategy == Rolling(1, 1)
    steps = (Urge(2, 5),)
    assert (service.retire, service.stop) == (StopPolicy(15, 9, steps), StopPolicy(3, 9, steps))
    assert service.start == StartPolicy(1, 0.2)
    assert service.restart.backoff_seconds == 2
    assert service.restart.final_codes == (3,)
    assert service.boot == BootPolicy(ReadyByNotify(), 5, 1)
    assert boot.signals is SignalProfile.UNICORN
    assert boot.directory == f"{place}/folder"
    assert boot.files.pid == f"{place}/pid"
    assert service.name == "n"
    assert (boot.sockets.backlog, boot.sockets.path_mode) == (7, 0o660)


@pytest.mark.parametrize(
    ("options", "variable", "workers"),
    [
        ({"workers": "3"}, "5", 3),
        ({}, "5", 5),
        ({}, " ", len(os.sched_getaffinity(0))),
    ],
)
def test_workers_are_those_of_the_option_then_of_the_platform_then_of_the_cores(
    options: Options, variable: str, workers: int
) -> None:
    assert build(options, environ={"WEB_CONCURRENCY": variable}).service.workers == workers


def test_the_platforms_number_may_come_from_the_envdir(place: Path) -> None:
    (place / "folder" / "WEB_CONCURRENCY").write_text("6\n")
    assert build({"envdir": "folder"}).service.workers == 6


def test_a_bad_number_of_the_platform_is_refused_by_its_name() -> None:
    with pytest.raises(UsageError, match="WEB_CONCURRENCY 'many' is not a whole number"):
        build({}, environ={"WEB_CONCURRENCY": "many"})


def test_listeners_are_those_given() -> None:
    given = ["8000", "unix:/run/x", "[::1]:80", "unix:@y"]
    found = [spec.address for spec in build({"listen": given}).sockets.listeners]
    assert found == [
        InetAddress("0.0.0.0", 8000),
        UnixAddress("/run/x"),
        InetAddress("::1", 80, ipv6=True),
        UnixAddress("@y"),
    ]


def test_with_a_socket_that_was_passed_there_is_no_other() -> None:
    with socket.socket() as passed:
        environ = {"SERVER_STARTER_PORT": f"8080={passed.fileno()}"}
        sockets = build({}, environ=environ).sockets
        both = build({"listen": ["80"]}, environ=environ).sockets
    assert (len(sockets.listeners), len(sockets.inherited)) == (0, 1)
    assert (len(both.listeners), len(both.inherited)) == (1, 1)


def test_a_datagram_socket_that_was_passed_is_refused() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as passed:
        environ = {"SERVER_STARTER_PORT": f"8080={passed.fileno()}"}
        with pytest.raises(UsageError, match="takes no connections; pass a stream socket"):
            build({}, environ=environ)


@pytest.mark.parametrize(
    ("options", "watched"),
    [
        ({}, ["."]),
        ({"dir": "folder"}, ["folder"]),
        ({"reload-dir": ["folder", "."]}, ["folder", "."]),
        ({"reload-dir": ["folder", "./folder/"]}, ["folder"]),
    ],
)
def test_reload_watches_the_working_directory_unless_told_another(
    place: Path, options: Options, watched: list[str]
) -> None:
    boot = build({"reload": "1", **options})
    assert boot.watched == tuple(str(place / name) for name in watched)
    assert web_of({"reload": "1"}).debug


@pytest.mark.parametrize(
    "target",
    ["myapp:app", "a.b.c:d.e", "my-app:app", "myapp:create_app()", "myapp:factory.make()"],
)
def test_an_application_is_named(target: str) -> None:
    application = application_of({}, target)
    assert application.target == target
    assert msgspec.json.decode(application.options, type=WebOptions).target == target


def test_spaces_in_a_call_do_not_matter() -> None:
    assert application_of({}, "myapp:create_app( )").target == "myapp:create_app()"


BAD_TARGETS = [
    ("", "add it: sengu serve MODULE:NAME"),
    ("myapp.py", "write myapp:app"),
    ("./myapp.py", "write myapp:app"),
    ("path/myapp", "write path.myapp:app"),
    ("./path/to/my.py:make()", "write path.to.my:make()"),
    ("/srv/site/myapp.py:web", "write --dir /srv/site myapp:web"),
    ("../myapp.py", "write --dir .. myapp:app"),
    ("my app/1.py", "write --dir my app myapp:app"),
    ("myapp", "as in myapp:app"),
    ("mysite.wsgi", "as in mysite.wsgi:app"),
    ("my app", "as in myapp:app"),
    ("myapp:", "write MODULE:NAME"),
    (":app", "write MODULE:NAME"),
    ("myapp:app:x", "write MODULE:NAME"),
    ("myapp:1", "write MODULE:NAME"),
    ("myapp:create_app(1)", "write a function that takes none and calls create_app"),
    ("myapp:create_app(", "write MODULE:NAME"),
    (".myapp:app", "write MODULE:NAME"),
]


@pytest.mark.parametrize(("target", "hint"), BAD_TARGETS)
def test_what_names_no_application_is_refused(target: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        build({}, target)
    assert hint in str(raised.value)
    assert "\n" not in str(raised.value)


BAD: list[tuple[str, Options, str]] = [
    ("listener twice", {"listen": ["80", ":80"]}, "--listen 0.0.0.0:80 is given twice"),
    ("socket file twice", {"listen": ["unix:a", "unix:./a"]}, "given twice; drop one"),
    ("no time for progress", {"timeout": "500ms"}, "give at least 1, or 0 for none"),
    ("key alone", {"tls-key": "file"}, "add --tls-cert"),
    ("certificate missing", {"tls-cert": "nothing"}, "does not exist; check the path"),
    ("certificate a directory", {"tls-cert": "folder"}, "is not a file; name a PEM file"),
    ("key missing", {"tls-cert": "file", "tls-key": "nothing"}, "--tls-key"),
    ("certificate no PEM", {"tls-cert": "file"}, "or the key must be given with --tls-key"),
    ("pair no PEM", {"tls-cert": "file", "tls-key": "file"}, "each must be PEM"),
    ("threads of ASGI", {"interface": "asgi", "threads": "2"}, "give more --workers"),
    ("PROXY from nobody", {"proxy-protocol": "1"}, "add --trusted-proxy NETWORK"),
    ("reload in the dark", {"reload": "1", "daemonize": "1"}, "leave out --daemonize"),
    ("reload's directory alone", {"reload-dir": "folder"}, "add --reload"),
    ("reload's directory missing", {"reload": "1", "reload-dir": "x"}, "mkdir -p"),
    ("format alone", {"access-log-format": "json"}, "add --access-log FILE"),
    ("access log's directory missing", {"access-log": "no/log"}, "mkdir -p"),
    ("access log a directory", {"access-log": "folder"}, "name a file in it"),
    ("daemon without log", {"daemonize": "1"}, "add --log-file"),
    ("surge bound alone", {"max-surge": "2"}, "--strategy rolling"),
    ("dir missing", {"dir": "nowhere"}, "mkdir -p"),
    ("name a path", {"name": "a/b"}, "plain file name"),
    ("no such user", {"user": "no.such-user"}, "there is no such user"),
    ("no such group", {"group": "no.such-group"}, "there is no such group"),
    ("user without account", {"user": "99999999"}, "add --group"),
]


@pytest.mark.parametrize(("options", "hint"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_refused(options: Options, hint: str, place: Path) -> None:
    before = sorted(place.iterdir())
    with pytest.raises(UsageError) as raised:
        build(options)
    assert hint in str(raised.value)
    assert "\n" not in str(raised.value)
    assert sorted(place.iterdir()) == before


def test_asgi_needs_uvicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r"pip install 'sengu\[asgi\]'"):
        build({"interface": "asgi"})


def test_certificate_and_key_become_absolute(pems: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pems)
    assert web_of({"tls-cert": "both.pem"}).tls == Tls(f"{pems}/both.pem")
    pair = web_of({"tls-cert": "cert.pem", "tls-key": "key.pem"}).tls
    assert pair == Tls(f"{pems}/cert.pem", f"{pems}/key.pem")


@pytest.mark.parametrize(
    ("certificate", "key", "hint"),
    [
        ("cert.pem", "other.pem", "other.pem' is not the key of"),
        ("cert.pem", None, "given with --tls-key FILE"),
        ("cert.pem", "cert.pem", "each must be PEM"),
        ("cert.pem", "locked.pem", "write it without one: openssl pkey"),
    ],
)
def test_what_cannot_be_used_together_is_refused(
    pems: Path, certificate: str, key: str | None, hint: str
) -> None:
    options = {"tls-cert": str(pems / certificate)}
    if key is not None:
        options["tls-key"] = str(pems / key)
    with pytest.raises(UsageError) as raised:
        build(options)
    assert hint in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_key_that_may_not_be_read_is_refused(pems: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, *_, **__: not path.endswith("key.pem"))
    with pytest.raises(UsageError, match=r"key\.pem' may not be read by uid .* grant it read"):
        build({"tls-cert": str(pems / "cert.pem"), "tls-key": str(pems / "key.pem")})


ACCOUNT = pwd.struct_passwd(("www-data", "x", 33, 34, "", "/", "/bin/sh"))
GROUP = grp.struct_group(("adm", "x", 4, []))


@pytest.fixture
def accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """One user and one group, and we are root."""

    def by(known: Any, key: object) -> Any:
        def find(name: object) -> Any:
            if name != key:
                raise KeyError(name)
            return known

        return find

    monkeypatch.setattr(pwd, "getpwnam", by(ACCOUNT, "www-data"))
    monkeypatch.setattr(pwd, "getpwuid", by(ACCOUNT, 33))
    monkeypatch.setattr(pwd, "getpwall", lambda: [ACCOUNT])
    monkeypatch.setattr(grp, "getgrnam", by(GROUP, "adm"))
    monkeypatch.setattr(grp, "getgrall", lambda: [GROUP])
    monkeypatch.setattr(os, "getgrouplist", lambda _user, gid: [gid, 50])
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.mark.usefixtures("accounts")
@pytest.mark.parametrize(
    ("options", "privileges"),
    [
        ({"user": "www-data"}, Privileges(33, 34, (34, 50), None, "www-data")),
        ({"user": "33"}, Privileges(33, 34, (34, 50), None, "www-data")),
        (
            {"user": "www-data", "group": "adm", "umask": "7"},
            Privileges(33, 4, (4, 50), 7, "www-data"),
        ),
        ({"user": "1000", "group": "1000"}, Privileges(1000, 1000, (1000,), None, "1000")),
        ({"group": "adm"}, Privileges(None, 4, (4,))),
    ],
)
def test_users_and_groups_become_numbers(options: Options, privileges: Privileges) -> None:
    assert application_of(options).privileges == privileges


@pytest.mark.usefixtures("accounts")
@pytest.mark.parametrize(
    ("options", "hint"),
    [({"user": "wwwdata"}, "did you mean www-data?"), ({"group": "admn"}, "did you mean adm?")],
)
def test_a_slip_in_a_name_is_recognised(options: Options, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        build(options)
    assert hint in str(raised.value)


@pytest.mark.usefixtures("accounts")
def test_only_root_can_become_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 33)
    monkeypatch.setattr(os, "getegid", lambda: 34)
    assert application_of({"user": "www-data", "umask": "7"}).privileges == Privileges(umask=7)
    with pytest.raises(UsageError, match="--user needs root, this is uid 33; start sengu as root"):
        build({"user": "1000", "group": "34"})
    with pytest.raises(UsageError, match="--group needs root"):
        build({"group": "adm"})
