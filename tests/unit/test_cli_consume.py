"""`sengu consume`: what its server is told, what is refused, and where the password is not."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from sengu.cli.main import run
from sengu.cli.targets import find_modules
from sengu.config.consume import ENGINE
from sengu.config.tuning import Tuner
from sengu.model.consume import ConsumeOptions
from sengu.model.work import FileConfig
from tests.unit.support_executed import Executed, execute

Capture = pytest.CaptureFixture[str]
Run = Callable[..., Executed]

URL = "amqp://me:hunter2@mq/shop"


@pytest.fixture(autouse=True)
def place(free_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory."""
    monkeypatch.chdir(free_path)
    monkeypatch.delenv("SENGU_BROKER", raising=False)
    return free_path


@pytest.fixture
def consume(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `sengu consume` up to where it would execute the supervisor."""
    return lambda *args: execute(monkeypatch, "consume", *args)


def options_of(executed: Executed) -> ConsumeOptions:
    application = executed.boot.service.application
    assert application is not None
    assert application.engine == ENGINE
    return msgspec.json.decode(application.options, type=ConsumeOptions)


def test_without_options_it_has_the_defaults(consume: Run) -> None:
    executed = consume("myapp.jobs")
    options = options_of(executed)
    same = ConsumeOptions(
        "myapp.jobs",
        heartbeat_seconds=180.0,
        overrides=("control",),
        settings=options.settings,
    )
    assert msgspec.structs.asdict(options) == msgspec.structs.asdict(same)
    assert executed.boot.service.command == ("myapp.jobs",)


def test_every_option_reaches_the_engine(consume: Run) -> None:
    words = (
        f"myapp.jobs -w 4 --broker {URL} --broker amqp://b,amqp://c --only a --only b --split "
        "--share-threads 8 --job-timeout 30 --connect-timeout 5s --subscription-timeout 2m "
        "--no-declare --amqp-heartbeat 20 --log-level debug --log-format json"
    )
    executed = consume(*words.split())
    options = options_of(executed)
    assert executed.boot.service.workers == 4
    assert options.brokers == (URL, "amqp://b,amqp://c")
    assert (options.only, options.split, options.share_threads) == (("a", "b"), True, 8)
    assert (options.job_timeout_seconds, options.connect_timeout_seconds) == (30.0, 5.0)
    assert (options.unsubscribed_seconds, options.amqp_heartbeat_seconds) == (120.0, 20.0)
    assert not options.declares
    assert (options.log_level, options.log_form) == ("debug", "json")


def test_no_job_timeout_is_none(consume: Run) -> None:
    assert options_of(consume("jobs", "--job-timeout", "0")).job_timeout_seconds is None


def test_a_script_is_found_by_its_path(consume: Run, place: Path) -> None:
    (place / "jobs.py").touch()
    assert options_of(consume("jobs.py")).target == os.path.realpath(place / "jobs.py")


def test_the_password_is_in_the_options_only(consume: Run) -> None:
    executed = consume("jobs", "--broker", URL)
    assert "hunter2" not in " ".join(executed.arguments)
    assert "hunter2" not in " ".join(executed.environ.values())
    document = msgspec.json.decode(msgspec.json.encode(executed.boot))
    del document["service"]["application"]["options"]
    assert "hunter2" not in repr(document)
    assert "hunter2" not in repr(options_of(executed))


def test_another_configuration_keeps_what_only_the_engine_knows(consume: Run, place: Path) -> None:
    (place / "jobs.toml").write_text("")
    executed = consume("jobs", "--broker", URL, "--config", "jobs.toml", "--split")
    boot = executed.boot
    tuned = Tuner(boot.service, boot.given).tune({"log_format": "json", "workers": 3}).spec
    assert tuned.workers == 3
    assert tuned.application is not None
    options = msgspec.json.decode(tuned.application.options, type=ConsumeOptions)
    assert (options.brokers, options.split, options.log_form) == ((URL,), True, "json")


def test_settings_come_from_the_configuration(consume: Run, place: Path) -> None:
    """Not those that only `sengu work` has: they may mean anything."""
    (place / "jobs.toml").write_text('name = "configured"\nkind = "of mine"\ncommand_pipe = 7\n')
    executed = consume("jobs", "--config", "jobs.toml")
    assert executed.boot.service.name == "configured"
    options = options_of(executed)
    assert options.config == FileConfig(os.path.realpath(place / "jobs.toml"))
    assert not {"kind", "command-pipe"} & set(options.settings)
    assert "workers" in options.settings


def test_shells_complete_modules_and_scripts(place: Path) -> None:
    (place / "shop").mkdir()
    for name in ("jobs.py", "shop/__init__.py", "shop/jobs.py"):
        (place / name).touch()
    assert find_modules(".", "") == ["jobs", "shop", "shop.jobs", "jobs.py"]
    assert find_modules(".", "jobs.") == ["jobs.py"]


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        ([], "no module was given"),
        (["myapp:handle"], "write myapp --only handle"),
        (["my-app"], "is not spelled right"),
        (["nope.py"], "there is no script"),
        (["jobs", "--broker", "http://me:hunter2@mq"], "is no address of a broker"),
        (["jobs", "--broker", "amqp://me:hunter2/@mq"], "/ as %2F"),
        (["jobs", "--share-threads", "0"], "--share-threads '0'"),
        (["jobs", "--connect-timeout", "9", "--ready-timeout", "5"], "make that longer"),
        (["jobs", "--kind", "thread"], "there is no option --kind"),
    ],
)
def test_bad_input_is_one_line(args: list[str], hint: str, capfd: Capture) -> None:
    assert run(["consume", *args]) == 2
    out, err = capfd.readouterr()
    assert re.fullmatch(r"sengu: error: .*\n", err)
    assert hint in err
    assert "hunter2" not in out + err


def test_a_wrong_variable_ends_it_here(monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    monkeypatch.setenv("SENGU_BROKER", "me:hunter2@mq")
    assert run(["consume", "jobs"]) == 2
    assert "SENGU_BROKER '…@mq' is no address" in capfd.readouterr().err


@pytest.mark.parametrize("verb", [["consume", "jobs"], ["publish", "downloads", "x"]])
def test_without_the_library_it_says_what_to_install(
    verb: list[str], monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert run(verb) == 1
    assert "pip install 'sengu[amqp]'" in capfd.readouterr().err
