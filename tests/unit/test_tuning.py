"""Settings in a configuration: which count, what they come to, and what is said of them."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sengu.cli.configured import parse_configured
from sengu.cli.options import given_texts
from sengu.config.launch import Launch
from sengu.config.setting import Effect
from sengu.config.settings import common
from sengu.config.settings import work as known
from sengu.config.tuning import BY_DEPLOY, LIVE, NAMES, Tuner
from sengu.config.work import Script, assemble_work
from sengu.errors import UsageError
from sengu.model.service import Pacing, Rolling, Urge

Texts = Mapping[str, Sequence[str]]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a configuration that says nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs.toml").write_text("")
    return tmp_path


def launch(**given: str) -> Launch:
    texts: dict[str, list[str]] = {name.replace("_", "-"): [text] for name, text in given.items()}
    texts.setdefault("config", ["jobs.toml"])
    texts["control"] = ["control.sock"]
    values, script = parse_configured(texts, Script())
    return assemble_work(values, "jobs:Class", {"PATH": os.environ["PATH"]}, script)


def tuner(**given: str) -> Tuner:
    boot = launch(**given).boot
    return Tuner(boot.service, boot.given)


def changes(settings: Mapping[str, Any], before: Mapping[str, Any] = {}, **given: str) -> list[str]:
    """All that people are told."""
    tuned = tuner(**given)
    change = tuned.compare(tuned.tune(before), tuned.tune(settings))
    return [*change.taken, *change.waiting, *change.overridden]


def problem(settings: Mapping[str, Any], **given: str) -> str:
    with pytest.raises(UsageError) as raised:
        tuner(**given).tune(settings)
    return str(raised.value)


def test_settings_of_a_configuration_make_the_service_as_options_would(place: Path) -> None:
    tuned = tuner().tune(
        {
            "workers": 8,
            "interval": 0.5,
            "grace": "2m",
            "stop-escalation": "QUIT:10",
            "strategy": "rolling",
            "max_surge": 3,
            "start_delay": 1,
            "unrecoverable-exit-codes": "3,4",
            "max_rss": "64m",
            "log_format": "json",
        }
    )
    spec = tuned.spec
    assert spec.workers == 8
    assert spec.restart.backoff_seconds == 0.5
    assert spec.restart.final_codes == (3, 4)
    assert (spec.stop.grace_seconds, spec.retire.grace_seconds) == (120, 120)
    assert [step.after_seconds for step in spec.stop.steps] == [10]
    assert isinstance(spec.stop.steps[0], Urge)
    assert spec.strategy == Rolling(3, 0)
    assert spec.start.delay_seconds == 1
    assert spec.application is not None
    assert spec.application.wear.max_rss_bytes == 64 << 20
    assert spec.application.grace_seconds == 120
    assert b'"log_form":"json"' in bytes(spec.application.options)


def test_without_settings_the_service_is_as_it_was_started() -> None:
    boot = launch(workers="3", grace="5", max_age="1h").boot
    assert Tuner(boot.service, boot.given).tune({}).spec == boot.service


def test_the_command_line_has_the_last_word_and_that_is_said() -> None:
    assert tuner(workers="3").tune({"workers": 8}).spec.workers == 3
    assert changes({"workers": 8}, workers="3") == ["workers 8 does not count: --workers was given"]
    assert changes({"workers": 3}, workers="3") == []


def test_what_has_changed_is_told_and_what_has_not_is_not() -> None:
    assert changes({"workers": 2, "grace": 30}) == ["workers 1 -> 2"]
    assert changes({"workers": 2}, {"workers": 2}) == []
    assert changes({}, {"workers": 2}) == ["workers 2 -> 1"]
    assert changes({"enable_auto_restart": True}) == ["enable-auto-restart off -> on"]
    assert changes({"max_rss": "1g"}) == ["max-rss 1g needs a deploy"]
    assert changes({"user": "nobody"}) == ["user nobody needs a restart"]
    assert changes({"n": 1, "database": {"workers": 3}}) == []


def test_what_needs_a_restart_is_told_until_there_is_one(place: Path) -> None:
    settings = {"dir": "/"}
    assert changes(settings, settings) == ["dir / needs a restart"]
    (place / "jobs.toml").write_text("dir = '/'")
    assert launch().boot.directory == "/"
    assert changes(settings, settings) == []
    assert changes({}, settings) == ["dir the current directory needs a restart"]


def test_a_restart_takes_from_the_file_what_needs_one_and_leaves_the_rest_to_who_reads_it_again(
    place: Path,
) -> None:
    (place / "jobs.toml").write_text("workers = 5\nhooks = 'my.hooks'\ndir = '/'\n")
    boot = launch(dir=str(place)).boot
    assert boot.service.workers == 1
    assert boot.directory == str(place)
    assert boot.service.application is not None
    assert boot.service.application.hooks == "my.hooks"
    assert boot.given["hooks"] == ("my.hooks",)
    assert "workers" not in boot.given


def test_threads_are_as_many_as_the_file_says_at_the_start(place: Path) -> None:
    (place / "jobs.toml").write_text("workers = 5\nkind = 'thread'\n")
    boot = launch().boot
    assert boot.service.application is not None
    assert (boot.service.workers, boot.service.application.lanes) == (1, 5)
    tuned = Tuner(boot.service, boot.given)
    after = tuned.tune({"workers": 6, "kind": "thread"})
    assert after.spec.workers == 1
    assert tuned.compare(tuned.tune({}), after).waiting == ("workers 6 needs a restart",)


def test_a_configuration_cannot_say_where_it_is() -> None:
    assert "config" not in NAMES
    assert changes({"config": {"of": "my own"}}) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"workers": -3}, "workers: '-3' is not a whole number from 1 to 10000; give one"),
        ({"workers": True}, "workers is a bool, and has to be a number of workers"),
        ({"workers": [8]}, "workers is a list, and has to be a number of workers"),
        ({"workers": {"a": 1}}, "workers is a dict, and has to be a number of workers"),
        ({"max_rss": "huge"}, "max_rss: 'huge' is not a size; write 8190, 64k, 10m or 1g"),
        ({"enable-auto-restart": "yes"}, "enable-auto-restart is a str, and has to be true or"),
        ({"umask": 22}, "umask 22 is a number; write it in quotes, as in '022'"),
        ({"pre_deploy": ["a", 1, {}]}, "pre_deploy[2] is a dict, and has to be a text"),
        ({"log-level": "loud"}, "log-level: 'loud' is no level"),
        ({"grace": 5, "stop_escalation": "QUIT:6"}, "--stop-escalation has a signal after 6 s"),
        ({"start_jitter": 5}, "--start-jitter varies --start-delay"),
        ({"max_rss": 1, "max-rss": 2}, "max-rss is there twice, with - and with _; leave one"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_path(
    place: Path, settings: Mapping[str, Any], said: str
) -> None:
    assert problem(settings).startswith(f"{place}/jobs.toml: {said}")


def test_what_is_wrong_ends_a_start_too(place: Path) -> None:
    (place / "jobs.toml").write_text("grace = 'long'")
    with pytest.raises(UsageError, match=r"jobs\.toml: grace: 'long' is not a duration"):
        launch()
    (place / "jobs.toml").write_text("grace")
    with pytest.raises(UsageError, match=r"the configuration .*jobs\.toml is wrong"):
        launch()


def test_what_is_wrong_for_another_reason_tells_which_settings_are_in_the_configuration(
    place: Path,
) -> None:
    (place / "jobs.toml").write_text("server = 'smtp.example.com'")
    with pytest.raises(UsageError) as raised:
        launch()
    assert "smtp.example.com" in str(raised.value)
    assert str(raised.value).endswith("(the configuration has the settings server)")


def test_settings_that_another_version_found_good_do_not_end_this_one() -> None:
    tuned = tuner()
    assert tuned.recall({"workers": "many"}).spec == tuned.tune({}).spec


def test_the_environment_of_a_generation_has_more_to_say_on_its_pace() -> None:
    tuned = tuner().tune({"kill_old_delay": 7, "enable_auto_restart": True})
    assert tuned.pacing({}) == Pacing(7.0, 360.0)
    assert tuned.pacing({"KILL_OLD_DELAY": "1", "ENABLE_AUTO_RESTART": ""}) == Pacing(1.0)


def test_what_is_live_for_the_command_line_is_live_in_a_configuration() -> None:
    live = {setting.name for setting in known.SETTINGS if setting.effect is Effect.LIVE}
    assert live <= {setting.name for setting in LIVE}
    assert not {one.name for one in LIVE} & {one.name for one in BY_DEPLOY}
    assert common.NAME not in LIVE


def test_a_class_without_a_configuration_is_not_configured() -> None:
    assert not launch_without().boot.service.application.is_configured  # type: ignore[union-attr]
    assert launch().boot.service.application.is_configured  # type: ignore[union-attr]


def launch_without() -> Launch:
    values, script = parse_configured({"control": ["control.sock"]}, Script())
    return assemble_work(values, "jobs:Class", {"PATH": os.environ["PATH"]}, script)


def test_options_that_were_not_given_do_not_hide_the_file(place: Path) -> None:
    (place / "jobs.toml").write_text("dir = '/'")
    texts = given_texts(known.SETTINGS, {"config": "jobs.toml"})
    values, script = parse_configured(texts, Script())
    assert values[common.DIR] == "/"
    assert script.configured == {"dir"}


def test_the_page_names_the_settings_by_when_they_hold() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    for head, settings in (("**At once**", LIVE), ("**By a deploy**", BY_DEPLOY)):
        named = page.partition(head)[2].partition(". ")[0]
        assert set(re.findall(r"`([a-z-]+)`", named)) == {setting.name for setting in settings}
