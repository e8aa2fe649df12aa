"""How values are spelled, what the environment decides, and that the table is sound."""

import signal
from typing import Any

import pytest

from sengu.config import kinds, web_kinds
from sengu.config.envdir import read_envdir
from sengu.config.pacing import pacing_from
from sengu.config.setting import Group, Setting, parse_values
from sengu.config.settings import common, serve
from sengu.config.settings.common import INTERVAL
from sengu.config.settings.start import PORT, SETTINGS
from sengu.errors import UsageError
from sengu.model.service import Pacing, ReadyAfterDelay, ReadyByNotify, ReadyByProbe, Urge

# The options of start_server 0.35 that set something.
PEER_OPTIONS = {
    "port", "path", "interval", "log-file", "pid-file", "dir", "signal-on-hup", "signal-on-term",
    "backlog", "envdir", "enable-auto-restart", "daemonize", "auto-restart-interval",
    "kill-old-delay", "status-file",
}  # fmt: skip


@pytest.mark.parametrize("settings", [SETTINGS, serve.SETTINGS], ids=["start", "serve"])
def test_each_setting_is_declared_once(settings: tuple[Setting[Any], ...]) -> None:
    spellings = [spelling for setting in settings for spelling in setting.spellings]
    assert len(spellings) == len(set(spellings))


@pytest.mark.parametrize("settings", [SETTINGS, serve.SETTINGS], ids=["start", "serve"])
def test_settings_stand_group_by_group(settings: tuple[Setting[Any], ...]) -> None:
    groups = [setting.group for setting in settings]
    assert groups == sorted(groups, key=list(Group).index)


def test_both_verbs_have_what_is_common() -> None:
    assert set(common.SETTINGS) == set(SETTINGS) & set(serve.SETTINGS)


def test_all_settings_of_the_peer_are_there() -> None:
    assert {setting.name for setting in SETTINGS} >= PEER_OPTIONS


ALL = {setting.name: setting for setting in (*SETTINGS, *serve.SETTINGS)}.values()


@pytest.mark.parametrize("setting", ALL, ids=lambda setting: setting.name)
def test_help_is_sentences(setting: Any) -> None:
    assert setting.help[0].isupper() or setting.help.startswith(("surge:", "rolling:", "common"))
    assert setting.help.endswith(".")


def test_of_an_option_given_twice_the_last_holds() -> None:
    assert parse_values(SETTINGS, {"interval": ["1", "2"]})[INTERVAL] == 2


def test_a_repeatable_option_keeps_all_in_order() -> None:
    found = parse_values(SETTINGS, {"port": ["8081", "8080"]})[PORT]
    assert [spec.key for spec in found] == ["8081", "8080"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 5), ("0", 0), ("0.5", 0.5), (".5", 0.5), ("500ms", 0.5), ("30s", 30), ("2m", 120),
     ("1h", 3600), (" 7 ", 7)],
)  # fmt: skip
def test_a_duration_reads(text: str, seconds: float) -> None:
    assert kinds.parse_duration("--grace", text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "number"),
    [("TERM", 15), ("SIGTERM", 15), ("term", 15), ("sigterm", 15), ("15", 15), ("USR2", 12),
     ("64", 64)],
)  # fmt: skip
def test_a_signal_reads(text: str, number: int) -> None:
    assert kinds.parse_signal("--signal-on-hup", text) == number


@pytest.mark.parametrize(("text", "mode"), [("660", 0o660), ("0660", 0o660), ("0o7", 0o7)])
def test_a_mode_is_octal(text: str, mode: int) -> None:
    assert kinds.parse_mode("--path-mode", text) == mode


@pytest.mark.parametrize(
    ("text", "readiness"),
    [
        ("notify", ReadyByNotify()),
        ("tcp", ReadyByProbe()),
        ("http:/", ReadyByProbe("/")),
        ("http:/healthz?deep=1", ReadyByProbe("/healthz?deep=1")),
        ("delay:500ms", ReadyAfterDelay(0.5)),
    ],
)
def test_readiness_reads(text: str, readiness: object) -> None:
    assert kinds.parse_readiness("--ready", text) == readiness


@pytest.mark.parametrize(
    ("text", "size"),
    [("8190", 8190), ("64k", 65536), ("10M", 10 << 20), ("1g", 1 << 30), ("1GiB", 1 << 30),
     ("5 mb", 5 << 20), ("7b", 7)],
)  # fmt: skip
def test_a_size_reads(text: str, size: int) -> None:
    assert kinds.parse_size("--max-rss", text) == size


@pytest.mark.parametrize(
    ("text", "part"), [("0", 0.0), ("10", 0.1), ("10%", 0.1), (" 25 % ", 0.25)]
)
def test_a_percentage_reads(text: str, part: float) -> None:
    assert kinds.parse_percent("--jitter", text) == part


@pytest.mark.parametrize(
    ("text", "network"),
    [("127.0.0.1", "127.0.0.1/32"), ("10.0.0.0/8", "10.0.0.0/8"), ("::1", "::1/128"),
     ("0.0.0.0/0", "0.0.0.0/0"), ("unix", "unix")],
)  # fmt: skip
def test_a_proxy_reads(text: str, network: str) -> None:
    assert web_kinds.parse_proxy("--trusted-proxy", text) == network


@pytest.mark.parametrize(
    ("text", "prefix"), [("/", ""), ("/app", "/app"), ("/app/", "/app"), ("/a/b%20c", "/a/b%20c")]
)
def test_a_prefix_reads(text: str, prefix: str) -> None:
    assert web_kinds.parse_prefix("--root-path", text) == prefix


BAD_VALUES = [
    ("interval", "", "not a duration"),
    ("interval", "soon", "write 5, 0.5, 500ms, 2m or 1h"),
    ("interval", "-1", "not a duration"),
    ("interval", "1e3", "not a duration"),
    ("interval", "9" * 400, "longer than ten years"),
    ("interval", "٣", "not a duration"),
    ("ready-timeout", "0", "give more than 0"),
    ("watchdog", "0s", "give more than 0"),
    ("workers", "0", "from 1 to"),
    ("workers", "-1", "from 1 to"),
    ("workers", "1.5", "from 1 to"),
    ("workers", "many", "from 1 to"),
    ("workers", "9" * 5000, "from 1 to"),
    ("backlog", "0", "from 1 to"),
    ("max-surge", "x", "from 0 to"),
    ("signal-on-hup", "TREM", "did you mean TERM?"),
    ("signal-on-hup", "ZZZZZZ", "kill -l"),
    ("signal-on-term", "0", "no such signal"),
    ("signal-on-term", "65", "no such signal"),
    ("path-mode", "rw", "octal"),
    ("path-mode", "888", "octal"),
    ("path-mode", "4777", "octal"),
    ("ready", "yes", "write notify, tcp, http:/PATH or delay:SECONDS"),
    ("ready", "http", "write notify"),
    ("ready", "http:healthz", "starts with /"),
    ("ready", "http:/a b", "spaces"),
    ("ready", "notify:1", "write notify"),
    ("ready", "delay:x", "not a duration"),
    ("strategy", "canary", "write surge or rolling"),
    ("port", "http", "8080, host:8080"),
    ("port", "70000", "65535"),
    ("path", "", "name the socket file"),
    ("path", "/" + "x" * 200, "shorter"),
    ("unrecoverable-exit-codes", "256", "from 0 to 255"),
    ("unrecoverable-exit-codes", "3,,4", "from 0 to 255"),
    ("unrecoverable-exit-codes", "failure", "from 0 to 255"),
    ("stop-escalation", "QUIT", "as in TERM:10,QUIT:20"),
    ("stop-escalation", "QUIT:10,", "as in TERM:10,QUIT:20"),
    ("stop-escalation", "QIUT:10", "did you mean QUIT?"),
    ("stop-escalation", "QUIT:soon", "not a duration"),
    ("stop-escalation", "TERM:10,QUIT:10", "not later than the one before it"),
    ("start-jitter", "91", "from 0 to 90"),
    ("pid-file", "", "give it a value"),
    ("pid-file", "\udcff", "UTF-8"),
]


BAD_VALUES_OF_APPLICATIONS = [
    ("listen", "8000=4", "which are for sengu start"),
    ("listen", "u53", "which are for sengu start"),
    ("listen", "/run/app.sock", "write unix:/run/app.sock"),
    ("listen", "unix:", "name the socket file"),
    ("listen", "http://localhost:8000", "write one of: 8000"),
    ("listen", "localhost", "write one of: 8000"),
    ("listen", "80000", "65535"),
    ("interface", "rack", "write auto, wsgi or asgi"),
    ("signals", "puma", "write default, unicorn or serverengine"),
    ("access-log-format", "xml", "write common, combined or json"),
    ("threads", "0", "from 1 to 1000"),
    ("health-path", "healthz", "write one as in /healthz"),
    ("health-path", "/healthz?full", "write one as in /healthz"),
    ("health-path", "/gesund heit", "write one as in /healthz"),
    ("health-path", "/%68ealthz", "write one as in /healthz"),
    ("root-path", "app", "write one as in /app"),
    ("root-path", "/a b", "write one as in /app"),
    ("root-path", "/a?b", "write one as in /app"),
    ("hooks", "app/hooks.py", "write the module's: app.hooks"),
    ("hooks", "hooks.py", "write the module's: hooks"),
    ("hooks", "a b", "as in package.module"),
    ("timeout", "-1", "not a duration"),
    ("keep-alive", "x", "not a duration"),
    ("header-timeout", "0", "more than 0"),
    ("limit-body", "0", "1 byte or more"),
    ("limit-body", "10x", "write 8190, 64k, 10m or 1g"),
    ("limit-body", "9" * 400, "write 8190"),
    ("max-rss", "999999999999g", "no size to work with"),
    ("max-requests", "0", "from 1 to"),
    ("jitter", "95", "from 0 to 90"),
    ("jitter", "0.1", "from 0 to 90"),
    ("trusted-proxy", "10.0.0.1/8", "did you mean 10.0.0.0/8?"),
    ("trusted-proxy", "*", "write one as in 127.0.0.1"),
    ("trusted-proxy", "proxy.local", "write one as in 127.0.0.1"),
    ("user", "a b", "neither a name nor a number"),
    ("user", "", "neither a name nor a number"),
    ("group", "4294967295", "the highest there can be"),
    ("umask", "9", "octal"),
]


@pytest.mark.parametrize(
    ("settings", "name", "text", "hint"),
    [(SETTINGS, *row) for row in BAD_VALUES]
    + [(serve.SETTINGS, *row) for row in BAD_VALUES_OF_APPLICATIONS],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_a_bad_value_is_named_with_a_way_out(
    settings: tuple[Setting[Any], ...], name: str, text: str, hint: str
) -> None:
    with pytest.raises(UsageError) as raised:
        parse_values(settings, {name: [text]})
    message = str(raised.value)
    assert f"--{name}" in message
    assert hint in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("environment", "pacing"),
    [
        ({}, Pacing()),
        ({"ENABLE_AUTO_RESTART": ""}, Pacing()),
        ({"ENABLE_AUTO_RESTART": "0"}, Pacing()),
        ({"ENABLE_AUTO_RESTART": "1"}, Pacing(5, 360)),
        ({"ENABLE_AUTO_RESTART": "no"}, Pacing(5, 360)),
        ({"ENABLE_AUTO_RESTART": "1", "KILL_OLD_DELAY": "0"}, Pacing(0, 360)),
        ({"ENABLE_AUTO_RESTART": "1", "KILL_OLD_DELAY": ""}, Pacing(0, 360)),
        ({"ENABLE_AUTO_RESTART": "1", "AUTO_RESTART_INTERVAL": "30"}, Pacing(5, 30)),
        ({"ENABLE_AUTO_RESTART": "1", "AUTO_RESTART_INTERVAL": "0"}, Pacing(5, 360)),
        ({"AUTO_RESTART_INTERVAL": "30"}, Pacing()),
        ({"KILL_OLD_DELAY": "2.5"}, Pacing(2.5)),
    ],
)
def test_the_pace_is_what_the_peer_makes_of(environment: dict[str, str], pacing: Pacing) -> None:
    assert pacing_from(environment) == pacing


@pytest.mark.parametrize("name", ["KILL_OLD_DELAY", "AUTO_RESTART_INTERVAL"])
def test_a_bad_number_in_the_environment_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} 'soon' is not a duration"):
        pacing_from({"ENABLE_AUTO_RESTART": "1", name: "soon"})


def test_an_envdir_reads_first_lines_and_passes_over_the_rest(tmp_path: Any) -> None:
    (tmp_path / "PLAIN").write_text("value\nsecond line\n")
    (tmp_path / "NO_NEWLINE").write_text(" kept as it is ")
    (tmp_path / "BLANK").write_text("\n")
    (tmp_path / "EMPTY").write_text("")
    (tmp_path / "NUL").write_bytes(b"a\0b\n")
    (tmp_path / "LATIN").write_bytes(b"\xe4\n")
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / "DIRECTORY").mkdir()
    (tmp_path / "DANGLING").symlink_to("nowhere")
    assert read_envdir(str(tmp_path)) == {
        "PLAIN": "value",
        "NO_NEWLINE": " kept as it is ",
        "BLANK": "",
        "LATIN": "\udce4",
    }


def test_signal_numbers_in_the_table_are_term() -> None:
    defaults = {s.name: s.default for s in SETTINGS if s.kind is kinds.SIGNAL}
    assert defaults == {"signal-on-hup": signal.SIGTERM, "signal-on-term": signal.SIGTERM}


def test_exit_codes_and_escalations_read() -> None:
    assert kinds.parse_exit_codes("--codes", "3, 4,3") == (3, 4)
    assert kinds.parse_escalation("--steps", "TERM:10,quit:0.5m") == (Urge(15, 10.0), Urge(3, 30.0))
