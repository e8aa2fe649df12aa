"""The pages on worker classes say what the code says, and what ServerEngine's users look for."""

import re
import sys
import types
from pathlib import Path

import pytest

import sengu
from sengu.config import tuning
from sengu.config.setting import Setting
from sengu.config.settings import work
from sengu.model.work import WorkKind

DOCS = Path(__file__).parents[2] / "docs"
WORKERS = (DOCS / "workers.md").read_text()
SERVERENGINE = (DOCS / "from-serverengine.md").read_text()
SETTINGS = {f"--{setting.name}": setting for setting in work.SETTINGS}

# "List of all configurations" in the ServerEngine's documentation, and two of its text.
PARAMETERS = """
daemonize pid_path supervisor disable_sigdump daemon_process_name chuser chgroup chumask
daemonize_error_exit_code
server_process_name restart_server_process enable_detach exit_on_detach disable_reload
server_restart_wait server_detach_wait
workers start_worker_delay start_worker_delay_rand
worker_process_name worker_heartbeat_interval worker_heartbeat_timeout
worker_graceful_kill_interval worker_graceful_kill_interval_increment
worker_graceful_kill_timeout worker_immediate_kill_interval
worker_immediate_kill_interval_increment worker_immediate_kill_timeout
unrecoverable_exit_codes stop_immediately_at_unrecoverable_exit worker_reload_signal
log log_level log_rotate_age log_rotate_size log_stdout log_stderr logger_class
worker_type command_sender
"""
# "Module API".
OF_WORKER = """
initialize before_fork run spawn stop reload after_start server config logger worker_id
"""
OF_SERVER = """
initialize before_run after_run after_start reload_config stop restart config logger
"""


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def name(cell: str) -> str:
    match = re.match(r"`(?:self\.)?(\w+)", cell)
    assert match, cell
    return match[1]


def effect(setting: Setting[object]) -> str:
    """What the table says of one: its default, and how it changes."""
    default = setting.describe_default() or "off"
    if setting in tuning.LIVE:
        return f"{default}, live"
    return f"{default}, by deploy" if setting in tuning.BY_DEPLOY else default


def has(kind: type, attribute: str) -> bool:
    return hasattr(kind, attribute) or attribute in kind.__annotations__


def test_each_parameter_of_serverengine_has_its_row() -> None:
    assert [name(row[0]) for row in rows(SERVERENGINE, "Settings")] == PARAMETERS.split()


@pytest.mark.parametrize("row", rows(SERVERENGINE, "Settings"), ids=lambda row: row[0])
def test_what_a_row_names_is_a_setting_and_has_that_default(row: list[str]) -> None:
    _, theirs, option, ours, remark = row
    assert theirs
    if option == "–":
        assert ours == ""
        assert remark
        return
    setting = SETTINGS[option.strip("`")]
    assert ours == effect(setting)


@pytest.mark.parametrize(
    ("heading", "names", "kinds"),
    [
        ("The worker", OF_WORKER, (sengu.Worker, sengu.Server)),
        ("The server", OF_SERVER, (sengu.Server,)),
    ],
)
def test_each_hook_of_serverengine_has_its_row(
    heading: str, names: str, kinds: tuple[type, ...]
) -> None:
    found = rows(SERVERENGINE, heading)
    assert [name(row[0]) for row in found] == names.split()
    for _, ours, remark in found:
        assert any(has(kind, name(ours)) for kind in kinds) if ours != "–" else remark


def test_the_page_tells_of_all_that_a_worker_has() -> None:
    told = [*rows(WORKERS, "What a worker has"), *rows(WORKERS, "Its life")]
    names = {name(row[0]) for row in told}
    public = {one for one in vars(sengu.Worker) if not one.startswith("_")}
    public |= {one for one in sengu.Worker.__annotations__ if not one.startswith("_")}
    # Of kind `spawn`, told there.
    assert names == public - {"command", "says_ready", "reload_signal"}
    assert all(one in WORKERS for one in ("`def command(", "`says_ready = ", "`reload_signal`"))


def test_the_page_tells_of_all_that_a_server_has() -> None:
    section = WORKERS.partition("\n## What workers share\n")[2].partition("\n## ")[0]
    public = {one for one in vars(sengu.Server) if not one.startswith("_")}
    public |= set(sengu.Server.__annotations__) - {"_open_sockets"}
    assert all(re.search(rf"`(self\.)?{one}(\(\))?`", section) for one in public)


def test_the_page_tells_of_all_kinds() -> None:
    assert {name(row[0]) for row in rows(WORKERS, "Kinds")} == {kind.value for kind in WorkKind}


def test_what_the_page_shows_of_testing_is_a_test(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_start, *_ = re.findall(r"^```python\n(.*?)^```", WORKERS, re.M | re.S)
    section = WORKERS.partition("\n## Testing\n")[2]
    test, *_ = re.findall(r"^```python\n(.*?)^```", section, re.M | re.S)
    jobs = types.ModuleType("jobs")
    exec(quick_start, vars(jobs))
    monkeypatch.setitem(sys.modules, "jobs", jobs)
    found: dict[str, object] = {}
    exec(test, found)
    shown = found["test_it_works_every_second"]
    assert callable(shown)
    shown()
