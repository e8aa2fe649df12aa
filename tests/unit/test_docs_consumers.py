"""The pages on queue consumers say what the code says, and what users of others look for."""

import re
import sys
import types
from pathlib import Path
from typing import Any

import click
import pytest

from sengu import consumers
from sengu.cli.main import sengu
from sengu.config.setting import Setting
from sengu.config.settings import consume
from sengu.consumers.api import Consumer, Options
from sengu.consumers.message import Message
from sengu.consumers.model import judge
from sengu.consumers.model.judge import Outcome
from sengu.consumers.model.spec import retrying
from sengu.consumers.publisher import PublishOptions

DOCS = Path(__file__).parents[2] / "docs"
CONSUMERS = (DOCS / "consumers.md").read_text()
SNEAKERS = (DOCS / "from-sneakers.md").read_text()
CELERY = (DOCS / "from-celery.md").read_text()
SETTINGS = {f"--{setting.name}": setting for setting in consume.SETTINGS}

# Sneakers::Configuration, its deprecated keys, what its other parts look up there, and what rake
# and the command line are told.
OF_SNEAKERS = """
amqp vhost connection heartbeat amqp_heartbeat
exchange exchange_options[:type] exchange_options[:durable] exchange_options[:auto_delete]
exchange_options[:arguments] exchange_type exchange_arguments routing_key bind_arguments
queue_options[:durable] queue_options[:auto_delete] queue_options[:exclusive]
queue_options[:arguments] durable arguments
prefetch threads share_threads ack timeout_job_after handler content_type content_encoding
error_reporters metrics hooks[:before_fork] hooks[:after_fork]
publisher_options[:auto_declare_queue] properties
workers start_worker_delay worker_classes runner_config_file daemonize pid_path log log_level
"""
OF_MAXRETRY = """
retry_max_times retry_timeout retry_exchange retry_error_exchange retry_requeue_exchange
retry_routing_key
"""
OF_SNEAKERS_WORKER = """
from_queue work work_with_params initialize stop ack! reject! requeue! logger publish enqueue
"""


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of all tables below a heading, without their heads."""
    section = re.split(r"\n##+ ", page.partition(f"# {heading}\n")[2], maxsplit=1)[0]
    tables = re.findall(r"^\|.*\n\|[-|: ]+\|\n((?:\|.*\n)+)", section, re.M)
    assert tables, heading
    lines = "".join(tables).splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def defaults(cell: str) -> str:
    """The default of what a cell names, as the tables for those who come from elsewhere have it."""
    (name,) = names(cell)
    if name in SETTINGS:
        return SETTINGS[name].describe_default() or "off"
    default = Options._field_defaults[name]
    return "none" if default is None or default in ("", (), {}) else str(default)


def public(kind: Any) -> set[str]:
    fields = {name for name in vars(kind) if not name.startswith("_")}
    return fields | {name for name in getattr(kind, "__annotations__", {}) if name[0] != "_"}


def is_ours(name: str) -> bool:
    """Whether it is a verb, an option, or something that is imported."""
    if name.startswith("sengu "):
        return sengu.get_command(click.Context(sengu), name.split()[1]) is not None
    if name in SETTINGS or name in Options._fields or name in public(Consumer):
        return True
    found: Any = consumers
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is not None


def test_the_page_has_all_options_of_a_consumer_with_their_defaults() -> None:
    def shown(default: object) -> str:
        return "–" if default in ("", (), {}) else f"`{default!r}`"

    assert [(row[0], row[1]) for row in rows(CONSUMERS, "Options")] == [
        (f"`{name}`", shown(Options._field_defaults[name])) for name in Options._fields
    ]


def test_the_page_has_all_of_a_message() -> None:
    told = {row[0].strip("`").removesuffix("()") for row in rows(CONSUMERS, "A message")}
    assert public(Message) <= told


def test_the_page_has_all_headers_and_reasons() -> None:
    told = rows(CONSUMERS, "The queues")
    ours = {value for value in vars(judge).values() if str(value).startswith("sengu-")}
    assert {name for row in told for name in names(row[0])} == ours
    (reasons,) = (names(row[1]) for row in told if row[0] == f"`{judge.REASON}`")
    assert set(reasons) == set(Outcome) - {Outcome.DONE}


def test_the_page_has_all_outcomes_that_metrics_are_told() -> None:
    section = CONSUMERS.partition("\n## Errors and metrics\n")[2].partition("\n## ")[0]
    unknown = {Outcome.KILLED, Outcome.SUSPECTED}  # of these the process does not hear
    assert all(f"`{outcome}`" in section for outcome in set(Outcome) - unknown)


def test_the_page_has_all_options_of_a_publisher() -> None:
    told = {name for row in rows(CONSUMERS, "Publishing") for name in names(row[0])}
    assert told == {"content_type", "message_id", *PublishOptions.__annotations__}


@pytest.mark.parametrize(
    ("backoff", "shown"),
    [
        ("exponential", "waits 10, 20, 40, 80 and 160 seconds"),
        ("linear", '`backoff="linear"` 10, 20, 30, 40 and 50;'),
    ],
)
def test_the_page_has_the_delays_of_retries(backoff: str, shown: str) -> None:
    section = " ".join(CONSUMERS.partition("\n## Retries\n")[2].split())
    assert shown in section
    assert tuple(map(float, re.findall(r"\d+", shown))) == retrying(5, backoff, 10.0).delays


@pytest.mark.parametrize(
    ("option", "seconds"), sorted(set(re.findall(r"`(--[a-z-]+)` \((\d+)(?: s)?\)", CONSUMERS)))
)
def test_a_default_that_the_text_has_is_that(option: str, seconds: str) -> None:
    assert SETTINGS[option].describe_default() == seconds


def test_the_options_that_are_about_queues_are_all_told_of() -> None:
    ours = {f"--{one.name}" for one in vars(consume).values() if isinstance(one, Setting)}
    told = set(re.findall(r"--[a-z][a-z-]+", CONSUMERS))
    assert ours - {"--workers"} <= told


def test_what_the_page_shows_of_testing_is_a_test(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick_start, *_ = re.findall(r"^```python\n(.*?)^```", CONSUMERS, re.M | re.S)
    section = CONSUMERS.partition("\n## Testing\n")[2]
    test, *_ = re.findall(r"^```python\n(.*?)^```", section, re.M | re.S)
    jobs = types.ModuleType("jobs")
    exec(quick_start, vars(jobs))
    monkeypatch.setitem(sys.modules, "jobs", jobs)
    found: dict[str, object] = {}
    exec(test, found)
    shown = found["test_a_download"]
    assert callable(shown)
    shown(capsys)


@pytest.mark.parametrize(
    "code", re.findall(r"^```python\n(.*?)^```", CONSUMERS, re.M | re.S), ids=lambda code: code[:30]
)
def test_what_the_page_shows_is_python(code: str) -> None:
    compile(code, "consumers.md", "exec")


def test_each_setting_of_sneakers_has_its_row() -> None:
    assert [names(row[0])[0] for row in rows(SNEAKERS, "Settings")] == OF_SNEAKERS.split()


def test_each_setting_of_maxretry_has_its_row() -> None:
    told = {names(row[0])[0] for row in rows(SNEAKERS, "Handlers")}
    assert set(OF_MAXRETRY.split()) <= told


def test_each_method_of_a_worker_of_sneakers_has_its_row() -> None:
    told = [names(row[0])[0].partition("(")[0] for row in rows(SNEAKERS, "The worker")]
    assert told == OF_SNEAKERS_WORKER.split()


@pytest.mark.parametrize(
    "row",
    [*rows(SNEAKERS, "Settings"), *rows(SNEAKERS, "Handlers"), *rows(CELERY, "Options")],
    ids=lambda row: row[0],
)
def test_what_a_row_names_is_ours_and_has_that_default(row: list[str]) -> None:
    _, _, ours, default, remark = row
    if ours == "–":
        assert default == ""
        assert remark or row in rows(CELERY, "Options")
    else:
        assert default == defaults(ours)


@pytest.mark.parametrize(
    "row",
    [*rows(SNEAKERS, "The worker"), *(row for row in rows(SNEAKERS, "All else") if len(row) == 3)],
    ids=lambda row: row[0],
)
def test_what_stands_for_a_method_is_there(row: list[str]) -> None:
    for name in names(row[1]):
        assert is_ours(name)
